/** What the gateway serves, and whether it can be reached. */
import { GatewayError, getJson, type Model, type NetworkStatus, type WorkerReport } from '../shared/gateway'
import { keepKey, keptKey } from './store/key'

const REFRESH_MS = 15_000
const RETRY_MS = 2_000

export type Connection = 'unknown' | 'reached' | 'unreachable' | 'key-needed' | 'failing'

/** The name of the model that is part of the program (`bin/surety/src/bundled.rs`). */
const DEMONSTRATION = 'shakespeare-demo'

class Network {
  models = $state.raw<Model[]>([])
  status = $state.raw<NetworkStatus | null>(null)
  connection = $state<Connection>('unknown')
  /** Why it fails, in the gateway's words. */
  problem = $state<string | null>(null)
  key = $state('')
  isKeyKept = $state(false)
  #timer: ReturnType<typeof setTimeout> | undefined

  async start(): Promise<void> {
    const kept = await keptKey()
    if (kept) {
      this.key = kept
      this.isKeyKept = true
    }
    addEventListener('online', () => void this.refresh())
    addEventListener('visibilitychange', () => !document.hidden && void this.refresh())
    await this.refresh()
  }

  async refresh(): Promise<void> {
    clearTimeout(this.#timer)
    try {
      const [list, status] = await Promise.all([
        getJson<{ data: Model[] }>('/v1/models', this.key),
        getJson<NetworkStatus>('/v1/network/status', this.key),
      ])
      this.models = list.data.filter((model) => model.surety?.chat)
      this.status = status
      this.connection = 'reached'
      this.problem = null
    } catch (error) {
      const isTold = error instanceof GatewayError
      this.connection = !isTold ? 'unreachable' : error.code === 'bad_key' ? 'key-needed' : 'failing'
      this.problem = isTold ? error.message : null
    }
    const pause = this.connection === 'reached' ? REFRESH_MS : RETRY_MS
    // Whoever looks elsewhere needs no news.
    this.#timer = setTimeout(() => (document.hidden ? undefined : void this.refresh()), pause)
  }

  async setKey(key: string, isKept: boolean): Promise<void> {
    this.key = key.trim()
    this.isKeyKept = await keepKey(this.key, isKept)
    await this.refresh()
  }

  async readKey(): Promise<void> {
    const kept = await keptKey()
    if (!kept || kept === this.key) return
    this.key = kept
    this.isKeyKept = true
    await this.refresh()
  }

  model(name: string): Model | undefined {
    return this.models.find((model) => model.id === name)
  }

  workersOf(model: Model): WorkerReport[] {
    return this.status?.workers.filter((worker) => worker.models.some((served) => served.id === model.surety.id)) ?? []
  }

  /** What an operator is called: by its account, or its worker's key. */
  operatorOf(workerKey: string): string | undefined {
    return this.status?.workers.find((worker) => worker.id === workerKey)?.operator
  }
}

export const network = new Network()

export const isDemonstration = (model: Model | undefined): boolean => model?.id === DEMONSTRATION
