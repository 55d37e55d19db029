/** How a dispute narrows what is in question, from its moves. */
import type { Story } from './shapes'

/** Words of a trace. */
export interface Span {
  first: number
  words: number
}

/** What was in question: the whole computation, then what each pick left, then the word that was judged. */
export function spans({ dispute, steps, leaf }: Pick<Story, 'dispute' | 'steps' | 'leaf'>): Span[] {
  if (dispute.words === 0) return []
  const found: Span[] = [{ first: 0, words: dispute.words }]
  for (const { first_word, words_left } of steps) {
    const last = found.at(-1)
    if (first_word === null || words_left === null || !last) continue
    // What is not within what was in question before is none of this game.
    if (words_left < last.words && words_left > 0 && first_word >= last.first && first_word + words_left <= last.first + last.words) found.push({ first: first_word, words: words_left })
  }
  const last = found.at(-1)
  if (leaf && last && last.words > 1 && leaf.word >= last.first && leaf.word < last.first + last.words) found.push({ first: leaf.word, words: 1 })
  return found
}
