/** Server-sent events out of a stream of bytes (WHATWG HTML, 9.2.6), as far as answers use them. */

export interface ServerEvent {
  id: string | null
  data: string
}

/** Characters of one event, at most: more is no event of a gateway. */
const EVENT_MAX = 8 << 20

/** Takes text as it comes, and gives the events that are whole. */
export class EventReader {
  #rest = ''
  #id: string | null = null
  #data: string[] = []

  take(text: string): ServerEvent[] {
    const events: ServerEvent[] = []
    const lines = (this.#rest + text).split('\n')
    this.#rest = lines.pop() ?? ''
    if (this.#rest.length > EVENT_MAX) throw new Error('the stream holds an event without an end')
    for (const raw of lines) {
      const line = raw.endsWith('\r') ? raw.slice(0, -1) : raw
      if (line === '') {
        if (this.#data.length > 0) events.push({ id: this.#id, data: this.#data.join('\n') })
        this.#id = null
        this.#data = []
        continue
      }
      const colon = line.indexOf(':')
      const name = colon < 0 ? line : line.slice(0, colon)
      const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '')
      if (name === 'data') this.#data.push(value)
      if (name === 'id') this.#id = value
    }
    return events
  }
}
