/**
 * Markdown as elements: each made by name, each text a text node. Nothing is ever parsed as HTML, so nothing that a model writes can run;
 * tags in it are shown as they were written, and images as links, since to load one would tell a stranger who reads.
 */
import type { Token, Tokens } from 'marked'
import { highlight } from './highlight'
import { formula } from './math'
import { safeLink, type Block, type MathToken } from './parser'

type Child = Node | string

/** What an element was made of, where that says more than its content: such an element is kept or replaced as a whole. */
const sources = new WeakMap<Node, string>()

export function element<K extends keyof HTMLElementTagNameMap>(name: K, attributes: Record<string, string> = {}, ...children: Child[]): HTMLElementTagNameMap[K] {
  const made = document.createElement(name)
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value)
  made.append(...children)
  return made
}

/** One element for each block. */
export function topBlocks(tokens: readonly Block[], isGrowing: boolean): Node[] {
  return tokens.map((token, index) => {
    const nodes = block(token, isGrowing && index === tokens.length - 1)
    return nodes.length === 1 && nodes[0] instanceof Element ? nodes[0] : element('p', {}, ...nodes)
  })
}

function blocks(tokens: readonly Block[], isGrowing: boolean): Node[] {
  return tokens.flatMap((token, index) => block(token, isGrowing && index === tokens.length - 1))
}

function block(token: Block, isGrowing: boolean): Node[] {
  switch (token.type) {
    case 'space':
    case 'def':
    case 'checkbox':
      return []
    case 'heading': {
      // The page's own heading is the first, and the chat's the second.
      const level = Math.min((token as Tokens.Heading).depth + 2, 6)
      return [element(`h${level}` as 'h3', {}, ...inlines(token.tokens))]
    }
    case 'paragraph':
      return [element('p', token.continues ? { class: 'continues' } : {}, ...inlines(token.tokens))]
    case 'text':
      return token.tokens ? inlines(token.tokens) : [text(token.text)]
    case 'code':
      return [code(token as Tokens.Code, isGrowing)]
    case 'blockquote':
      return [element('blockquote', {}, ...blocks(token.tokens ?? [], isGrowing))]
    case 'list':
      return [list(token as Tokens.List, isGrowing)]
    case 'table':
      return [table(token as Tokens.Table)]
    case 'hr':
      return [element('hr')]
    case 'math':
      return [math(token as unknown as MathToken)]
    default:
      return [element('p', {}, token.raw)]
  }
}

function inlines(tokens: readonly Token[] | undefined): Node[] {
  return (tokens ?? []).map(inline)
}

function inline(token: Token): Node {
  const within = (): Node[] => inlines('tokens' in token ? token.tokens : undefined)
  switch (token.type) {
    case 'text':
      return 'tokens' in token && token.tokens ? fragment(within()) : text(token.text)
    case 'escape':
      return text(token.text)
    case 'strong':
      return element('strong', {}, ...within())
    case 'em':
      return element('em', {}, ...within())
    case 'del':
      return element('del', {}, ...within())
    case 'codespan':
      return element('code', {}, token.text)
    case 'br':
      return element('br')
    case 'link':
      return link(token.href, within())
    case 'image':
      return link(token.href, [text(token.text ? `Image: ${token.text}` : 'Image')])
    case 'math':
      return math(token as unknown as MathToken)
    case 'checkbox':
      return document.createTextNode('')
    case 'html':
      // The one tag that models write in tables, where Markdown has no other way.
      return /^<br\s*\/?>$/i.test(token.raw) ? element('br') : document.createTextNode(token.raw)
    default:
      return text(token.raw)
  }
}

function link(href: string, content: Node[]): Node {
  const target = safeLink(href)
  if (!target) return fragment(content)
  return element('a', { href: target, target: '_blank', rel: 'noopener noreferrer nofollow', title: target }, ...content)
}

function list(token: Tokens.List, isGrowing: boolean): Node {
  const items = token.items.map((item, index) => {
    const content = blocks(item.tokens, isGrowing && index === token.items.length - 1)
    if (!item.task) return element('li', {}, ...content)
    const box = element('input', { type: 'checkbox', disabled: '', 'aria-label': item.checked ? 'done' : 'to do' })
    box.checked = item.checked === true
    return element('li', { class: 'task' }, box, ...content.filter((node) => !(node instanceof HTMLInputElement)))
  })
  if (!token.ordered) return element('ul', {}, ...items)
  return element('ol', token.start === 1 || token.start === '' ? {} : { start: String(token.start) }, ...items)
}

function table(token: Tokens.Table): Node {
  const row = (cells: Tokens.TableCell[], name: 'td' | 'th'): Node =>
    element('tr', {}, ...cells.map((cell, index) => {
      const align = token.align[index]
      return element(name, { ...(align ? { class: align } : {}), ...(name === 'th' ? { scope: 'col' } : {}) }, ...inlines(cell.tokens))
    }))
  const whole = element('table', {}, element('thead', {}, row(token.header, 'th')), element('tbody', {}, ...token.rows.map((cells) => row(cells, 'td'))))
  return element('div', { class: 'table', tabindex: '0', role: 'region', 'aria-label': 'Table' }, whole)
}

function code(token: Tokens.Code, isGrowing: boolean): Node {
  const language = /^[\w+#.-]{1,24}/.exec(token.lang ?? '')?.[0] ?? ''
  const content = element('code', {}, ...(isGrowing ? chunks(token.text) : [token.text]))
  const copy = element('button', { type: 'button', class: 'copy-code', 'aria-label': 'Copy code' }, 'Copy')
  const scroll = element('pre', { tabindex: '0' }, content)
  const made = element('figure', { class: 'code' }, element('figcaption', {}, element('span', {}, language || 'text'), copy), scroll)
  if (!isGrowing && language) {
    sources.set(made, token.raw)
    highlight(content, language, token.text)
  }
  return made
}

/** Lines of code that are laid out together while it grows: of all of it, only the last are laid out again. */
const CHUNK_LINES = 40

function chunks(code: string): Node[] {
  const lines = code.split(/(?<=\n)/)
  const count = Math.ceil(lines.length / CHUNK_LINES)
  return Array.from({ length: count }, (_, index) => element('span', { class: 'chunk' }, lines.slice(index * CHUNK_LINES, (index + 1) * CHUNK_LINES).join('')))
}

function math(token: MathToken): Node {
  const made = element(token.display ? 'div' : 'span', { class: 'math' }, token.text)
  sources.set(made, `${token.display} ${token.text}`)
  formula(made, token.text, token.display)
  return made
}

function fragment(children: Node[]): Node {
  return element('span', {}, ...children)
}

const REFERENCES: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'", nbsp: '\u00a0' }

/** The parser leaves character references as they are written. */
function text(content: string): Node {
  const read = content.replace(/&(?:(amp|lt|gt|quot|apos|nbsp)|#(\d{1,7})|#[xX]([\da-fA-F]{1,6}));/g, (whole, name?: string, decimal?: string, hex?: string) => {
    if (name) return REFERENCES[name] ?? whole
    const point = decimal ? Number(decimal) : parseInt(hex ?? '', 16)
    return point > 0 && point <= 0x10ffff && (point < 0xd800 || point > 0xdfff) ? String.fromCodePoint(point) : '\ufffd'
  })
  return document.createTextNode(read)
}

/** Makes a parent's children from `first` on what the fresh ones are, and leaves alone what is the same: a selection in it survives. */
export function patch(parent: Node, fresh: Node[], first = 0): void {
  fresh.forEach((node, index) => {
    const old = parent.childNodes[first + index]
    if (!old) parent.appendChild(node)
    else if (!patchNode(old, node)) parent.replaceChild(node, old)
  })
  while (parent.childNodes.length > first + fresh.length) parent.lastChild?.remove()
}

/** Makes a node what another is, if both are of a kind. */
function patchNode(old: Node, fresh: Node): boolean {
  if (old instanceof Text && fresh instanceof Text) {
    if (fresh.data.startsWith(old.data)) {
      if (fresh.length > old.length) old.appendData(fresh.data.slice(old.length))
    } else old.data = fresh.data
    return true
  }
  if (!(old instanceof Element && fresh instanceof Element) || old.tagName !== fresh.tagName) return false
  const source = sources.get(fresh)
  if (source !== undefined || sources.has(old)) return sources.get(old) === source
  const attributes = fresh.getAttributeNames()
  if (attributes.length !== old.getAttributeNames().length) return false
  if (attributes.some((name) => old.getAttribute(name) !== fresh.getAttribute(name))) return false
  patch(old, [...fresh.childNodes])
  return true
}
