/** A worker of the page's that reads receipts (`worker.ts`), so that the page answers meanwhile; and that can be stopped. */
import { MAX_BYTES } from '../shared/receipt/verify'
import { scriptAddress } from '../shared/scripts'
import { tooLong, type Outcome } from './read'
import address from './worker?worker&url'

/** A file, or a text. */
export type Given = Blob | string

export class Reader {
  #worker: Worker | null = null
  #stop: (() => void) | null = null

  constructor() {
    // Loaded at once, so that it is there when the gateway is not.
    this.#ready()
  }

  /** What comes of it; null: it was stopped. One at a time: the one before is stopped. */
  read(given: Given): Promise<Outcome | null> {
    this.stop()
    const size = typeof given === 'string' ? given.length : given.size
    if (size > MAX_BYTES) return Promise.resolve(tooLong(size))
    const worker = this.#ready()
    return new Promise((resolve, reject) => {
      this.#stop = () => resolve(null)
      worker.onmessage = ({ data }: MessageEvent<Outcome>) => {
        this.#stop = null
        resolve(data)
      }
      worker.onerror = () => {
        this.#end()
        reject(new Error('The verifier cannot be loaded, or ended. Load this page again.'))
      }
      worker.postMessage(given)
    })
  }

  stop(): void {
    const stop = this.#stop
    if (!stop) return
    this.#end()
    stop()
    this.#ready()
  }

  #ready(): Worker {
    return (this.#worker ??= new Worker(scriptAddress(address), { type: 'module' }))
  }

  #end(): void {
    this.#worker?.terminate()
    this.#worker = null
    this.#stop = null
  }
}
