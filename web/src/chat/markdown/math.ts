type Katex = typeof import('katex')

let loading: Promise<Katex['default']> | undefined

async function load(): Promise<Katex['default']> {
  const [katex] = await Promise.all([import('katex'), import('katex/dist/katex.min.css')])
  return katex.default
}

/** Sets a formula, once what that takes is loaded; what cannot be read stays as it was written. */
export function formula(target: HTMLElement, tex: string, displayMode: boolean): void {
  loading ??= load()
  loading.then(
    (katex) => {
      const set = document.createElement('span')
      try {
        // Bounded: macros may not multiply, nor boxes fill the page; `trust` would permit links and images.
        katex.render(tex, set, { displayMode, throwOnError: true, strict: 'ignore', trust: false, maxExpand: 300, maxSize: 30 })
        target.replaceChildren(set)
      } catch {
        target.classList.add('unread')
      }
    },
    () => (loading = undefined),
  )
}
