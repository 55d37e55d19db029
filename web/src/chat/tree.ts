/** The tree of messages: editing one, or asking again, makes a branch beside it. */

export interface Node {
  id: string
  parent: string | null
  created: number
}

/** Those who share a message's parent, oldest first. */
export function siblings<T extends Node>(messages: Map<string, T>, message: T): T[] {
  return childrenOf(messages, message.parent)
}

export function childrenOf<T extends Node>(messages: Map<string, T>, parent: string | null): T[] {
  const children = [...messages.values()].filter((message) => message.parent === parent)
  return children.sort((a, b) => a.created - b.created || (a.id < b.id ? -1 : 1))
}

/** From the first message to this one. A parent that is missing ends it: another tab may have written half of a branch. */
export function pathTo<T extends Node>(messages: Map<string, T>, leaf: string | null): T[] {
  const path: T[] = []
  const seen = new Set<string>()
  for (let at = leaf; at !== null && !seen.has(at); ) {
    seen.add(at)
    const message = messages.get(at)
    if (!message) break
    path.push(message)
    at = message.parent
  }
  return path.reverse()
}

/** The end of the newest branch under a message. */
export function leafUnder<T extends Node>(messages: Map<string, T>, id: string): string {
  for (;;) {
    const newest = childrenOf(messages, id).at(-1)
    if (!newest) return id
    id = newest.id
  }
}
