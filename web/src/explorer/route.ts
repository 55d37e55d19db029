/** Where in the explorer a hash leads, and back. */
import type { Findings } from './shapes'

export type Route =
  | { kind: 'overview' }
  | { kind: 'blocks'; before: number }
  | { kind: 'disputes' }
  | { kind: 'block' | 'transaction' | 'account' | 'dispute' | 'find'; id: string }

const ID = /^#(block|transaction|account|dispute|find)-(.{1,300})$/
const BEFORE = /^#blocks-before-(\d{1,15})$/

export function route(hash: string): Route {
  const before = BEFORE.exec(hash)
  if (before) return { kind: 'blocks', before: Number(before[1]) }
  if (hash === '#disputes') return { kind: 'disputes' }
  const found = ID.exec(hash)
  if (!found) return { kind: 'overview' }
  const [, kind, id = ''] = found
  try {
    return { kind: kind as 'block', id: decodeURIComponent(id) }
  } catch {
    // Not what was written here.
    return { kind: 'find', id }
  }
}

export const to = (kind: 'block' | 'transaction' | 'account' | 'dispute' | 'find', id: string | number): string => `#${kind}-${encodeURIComponent(id)}`

/** Where something that was found is shown. */
export function place({ kind, id }: Findings['found'][number]): string {
  if (kind === 'model') return `/network#model=${encodeURIComponent(id)}`
  if (kind === 'request') return `/verify#${encodeURIComponent(id)}`
  return to(kind, id)
}
