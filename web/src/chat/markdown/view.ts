import { copyText } from '../../shared/clipboard'
import { element, patch, topBlocks } from './elements'
import { GrowingMarkdown } from './parser'

/** After a frame that took so long, others come first for a multiple of it. */
const QUICK_MS = 6
const REST = 4

/** A text as it grows, in an element. */
export class MarkdownView {
  #markdown = new GrowingMarkdown()
  #root: HTMLElement
  #next: { text: string; isGrowing: boolean } | null = null
  #frame = 0
  #notBefore = 0

  constructor(root: HTMLElement) {
    this.#root = root
    root.addEventListener('click', copyCode)
  }

  show(text: string, isGrowing: boolean): void {
    this.#next = { text, isGrowing }
    if (isGrowing) this.#frame ||= requestAnimationFrame(this.#draw)
    else this.#render()
  }

  destroy(): void {
    cancelAnimationFrame(this.#frame)
  }

  #draw = (now: number): void => {
    this.#frame = 0
    if (now < this.#notBefore) this.#frame = requestAnimationFrame(this.#draw)
    else this.#render()
  }

  #render(): void {
    if (!this.#next) return
    const { text, isGrowing } = this.#next
    this.#next = null
    const began = performance.now()
    try {
      const first = this.#markdown.update(text, isGrowing)
      const { settled, tail } = this.#markdown
      patch(this.#root, [...topBlocks(settled.slice(first), false), ...topBlocks(tail, isGrowing)], first)
    } catch {
      // Nested too deeply, or otherwise beyond the parser: shown as it is.
      this.#markdown = new GrowingMarkdown()
      this.#root.replaceChildren(element('p', { class: 'verbatim' }, text))
    }
    const took = performance.now() - began
    this.#notBefore = took > QUICK_MS ? performance.now() + took * REST : 0
  }
}

async function copyCode(event: MouseEvent): Promise<void> {
  const button = event.target instanceof Element ? event.target.closest('button.copy-code') : null
  const code = button?.closest('figure')?.querySelector('code')
  if (!button || !code) return
  button.textContent = (await copyText(code.textContent ?? '')) ? 'Copied' : 'Cannot copy'
  setTimeout(() => (button.textContent = 'Copy'), 2000)
}
