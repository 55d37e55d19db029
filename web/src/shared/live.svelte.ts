/** A resource of the gateway, asked for again and again while somebody looks. */
import { GatewayError, headers as withKey } from './gateway'

const PAUSE_MS_MAX = 15_000
const PATIENCE_MS = 10_000

export class Live<T> {
  /** What was told last; null before that, and again when something else is asked for. */
  value = $state.raw<T | null>(null)
  /** By this machine's clock; 0: never. */
  heardAt = $state(0)
  /** Why the last question was not answered. Null: it was. */
  problem = $state.raw<Error | null>(null)

  get isUnreachable(): boolean {
    return this.problem !== null && !(this.problem instanceof GatewayError)
  }

  /** The code of the gateway's error, if it told one. */
  get code(): string | null {
    return this.problem instanceof GatewayError ? this.problem.code : null
  }

  /** Asks every so often, less often while it fails, and not at all while nobody looks; with the key, if there is one. Returns how to end that. */
  follow(path: string, everyMs: number, key = ''): () => void {
    this.value = null
    this.heardAt = 0
    this.problem = null
    const ended = new AbortController()
    const { signal } = ended
    let timer: ReturnType<typeof setTimeout> | undefined
    let etag: string | null = null
    let failures = 0
    let isAsking = false

    const ask = async () => {
      clearTimeout(timer)
      if (isAsking || document.hidden || signal.aborted) return
      isAsking = true
      try {
        const headers = withKey(key, { accept: 'application/json' })
        if (etag) headers['if-none-match'] = etag
        const response = await fetch(path, { headers, cache: 'no-store', signal: AbortSignal.any([signal, AbortSignal.timeout(PATIENCE_MS)]) })
        const body: unknown = response.status === 304 ? null : await response.json().catch(() => null)
        if (signal.aborted) return
        if (response.status !== 304) {
          if (!response.ok) throw GatewayError.of(response.status, body)
          this.value = body as T
          etag = response.headers.get('etag')
        }
        this.heardAt = Date.now()
        this.problem = null
        failures = 0
      } catch (error) {
        if (signal.aborted) return
        this.problem = error instanceof Error ? error : new Error(String(error))
        failures += 1
      } finally {
        isAsking = false
        if (!signal.aborted) timer = setTimeout(ask, Math.min(everyMs * 2 ** Math.min(failures, 8), PAUSE_MS_MAX))
      }
    }

    const again = () => void ask()
    addEventListener('visibilitychange', again, { signal })
    addEventListener('online', again, { signal })
    void ask()
    return () => {
      clearTimeout(timer)
      ended.abort()
    }
  }
}

/** For a component: what a path tells whoever has the key, while the component is there. Null asks nothing. */
export function live<T>(path: () => string | null, everyMs = 1000, key: () => string = () => ''): Live<T> {
  const found = new Live<T>()
  // What the path is made of may change more often than the path.
  const asked = $derived(path())
  const shown = $derived(key())
  $effect(() => (asked === null ? undefined : found.follow(asked, everyMs, shown)))
  return found
}

/** The time of this machine, once a second. */
class Clock {
  now = $state(Date.now())

  constructor() {
    setInterval(() => document.hidden || (this.now = Date.now()), 1000)
  }
}

let clock: Clock | undefined

export const now = (): number => (clock ??= new Clock()).now
