/** Other tabs of this page: what changed is told to them, and they read it anew. */

export type News =
  | { kind: 'chat'; chat: string }
  | { kind: 'message'; chat: string; message: string }
  | { kind: 'deleted'; chat: string }
  | { kind: 'stop'; message: string }
  | { kind: 'erased' }
  | { kind: 'key' }

const channel = typeof BroadcastChannel === 'undefined' ? null : new BroadcastChannel('surety')

export const tell = (news: News): void => channel?.postMessage(news)

export function hear(listener: (news: News) => void): void {
  if (channel) channel.onmessage = (event: MessageEvent<News>) => listener(event.data)
}

/**
 * Runs `act` while this tab alone has the name; waits for its turn. Whoever closes a tab, or reloads it, gives its names back. Pages
 * without TLS, but on loopback, have no locks: there the first to ask acts.
 */
export async function alone(name: string, act: () => Promise<void>): Promise<void> {
  if (!navigator.locks) return act()
  await navigator.locks.request(name, act)
}
