import { element } from './elements'

/** Characters of code that are coloured; more would take a frame's time. */
const LENGTH_MAX = 20_000

type Highlighter = typeof import('./languages')

let loading: Promise<Highlighter> | undefined

/** Colours code, once what that takes is loaded; until then, or in an unknown language, it stays as it is. */
export function highlight(target: Element, language: string, code: string): void {
  if (code.length > LENGTH_MAX) return
  loading ??= import('./languages')
  loading.then(
    ({ tokens }) => {
      const coloured = tokens(language, code)
      if (coloured) target.replaceChildren(...coloured.map(node))
    },
    () => (loading = undefined),
  )
}

interface Coloured {
  type: string
  value?: string
  properties?: { className?: unknown }
  children?: Coloured[]
}

function node({ type, value, properties, children }: Coloured): Node {
  if (type !== 'element') return document.createTextNode(value ?? '')
  const names = Array.isArray(properties?.className) ? properties.className.join(' ') : ''
  return element('span', { class: names }, ...(children ?? []).map(node))
}
