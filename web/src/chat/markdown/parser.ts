import { Marked, type Token, type TokenizerAndRendererExtension } from 'marked'

/** A formula, as TeX. */
export interface MathToken {
  type: 'math'
  raw: string
  text: string
  display: boolean
}

// A dollar sign opens a formula where no space follows, and closes one where none precedes and no digit follows: $5 and $10 are prices.
const INLINE = [
  { pattern: /^\$\$([^$]+?)\$\$/, display: true },
  { pattern: /^\$(?![\s$])((?:\\[^\n]|[^$\\\n])*?[^\s\\$])\$(?!\d)/, display: false },
  { pattern: /^\\\(([^\n]+?)\\\)/, display: false },
  { pattern: /^\\\[([\s\S]+?)\\\]/, display: true },
]
const BLOCK = /^(?:\$\$[ \t]*\n?([\s\S]+?)\n?[ \t]*\$\$|\\\[[ \t]*\n?([\s\S]+?)\n?[ \t]*\\\])[ \t]*(?:\n+|$)/

const inlineMath: TokenizerAndRendererExtension = {
  name: 'math',
  level: 'inline',
  start: (source) => /\$|\\[([]/.exec(source)?.index,
  tokenizer(source): MathToken | undefined {
    for (const { pattern, display } of INLINE) {
      const found = pattern.exec(source)
      if (found?.[1]) return { type: 'math', raw: found[0], text: found[1].trim(), display }
    }
    return undefined
  },
}

const blockMath: TokenizerAndRendererExtension = {
  name: 'math',
  level: 'block',
  start: (source) => /\n(?:\$\$|\\\[)/.exec(source)?.index,
  tokenizer(source): MathToken | undefined {
    const found = BLOCK.exec(source)
    const text = found?.[1] ?? found?.[2]
    return found && text ? { type: 'math', raw: found[0], text: text.trim(), display: true } : undefined
  },
}

const marked = new Marked({ gfm: true, breaks: true, extensions: [blockMath, inlineMath] })

export type Block = Token & { continues?: boolean }

/** A paragraph that is longer is divided at its lines while it grows. */
const PARAGRAPH_MAX = 2000
const SPECIAL = /[`*_~[\]$\\<]/

/**
 * Markdown that grows: what is settled is read once, and only its end again.
 *
 * A block is settled once another stands behind it; a blank line alone settles nothing, since lists go on across those.
 */
export class GrowingMarkdown {
  #source = ''
  #settledLength = 0
  settled: Block[] = []
  tail: Block[] = []

  /** Returns from which block on something changed. While it grows, a formula may be open at its end. */
  update(text: string, isGrowing = true): number {
    const source = text.replace(/\r\n?/g, '\n')
    if (!source.startsWith(this.#source.slice(0, this.#settledLength))) {
      this.settled = []
      this.#settledLength = 0
    }
    this.#source = source
    const before = this.settled.length
    const blocks: Block[] = marked.lexer(source.slice(this.#settledLength))
    if (isGrowing) holdFormula(blocks)
    const last = blocks.findLastIndex((block) => block.type !== 'space')
    // A line that has just begun may yet be an item of the list before it.
    const isBegun = last > 0 && /^.{0,12}$/.test(blocks[last]?.raw ?? '')
    const until = isBegun && isGrowing ? blocks.findLastIndex((block, index) => index < last && block.type !== 'space') : last
    for (const block of blocks.splice(0, Math.max(until, 0))) this.#settle(block)
    this.#divide(blocks)
    this.tail = blocks.filter(isShown)
    return before
  }

  #settle(block: Block): void {
    this.#settledLength += block.raw.length
    if (isShown(block)) this.settled.push(block)
  }

  /** Settles the first lines of a long paragraph, where nothing can be open in them. */
  #divide(blocks: Block[]): void {
    const [block] = blocks
    if (block?.type !== 'paragraph' || block.raw.length < PARAGRAPH_MAX) return
    const cut = block.raw.lastIndexOf('\n', block.raw.length - PARAGRAPH_MAX / 2) + 1
    const lines = block.raw.slice(0, cut)
    if (cut === 0 || SPECIAL.test(lines)) return
    this.#settledLength += cut
    for (const part of marked.lexer(lines)) if (part.type === 'paragraph') this.settled.push({ ...part, continues: true })
    blocks.splice(0, 1, ...marked.lexer(block.raw.slice(cut)))
  }
}

/** What stands behind the beginning of a formula that has no end yet may belong to it: it is one block until then. */
function holdFormula(blocks: Block[]): void {
  const first = blocks.findIndex((block) => {
    if (block.type !== 'paragraph') return false
    const opened = [...block.raw.matchAll(/(?:^|\n)(\$\$|\\\[)/g)].at(-1)
    return opened && !block.raw.slice(opened.index + opened[0].length).includes(opened[1] === '$$' ? '$$' : '\\]')
  })
  if (first < 0) return
  const raw = blocks.splice(first).map((block) => block.raw).join('')
  blocks.push({ type: 'paragraph', raw, text: raw, tokens: [{ type: 'text', raw, text: raw }] } as Block)
}

const isShown = (block: Block): boolean => block.type !== 'space' && block.type !== 'def'

/** Where a link may lead; nothing but other sites and mail. */
export function safeLink(href: string): string | null {
  try {
    const url = new URL(href)
    return ['http:', 'https:', 'mailto:'].includes(url.protocol) ? url.href : null
  } catch {
    return null
  }
}
