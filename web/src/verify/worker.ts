/** Reads and verifies what it is given, beside the page's own thread: tens of megabytes take seconds. */
import { loadVerifier } from '../shared/receipt/verify'
import { errorText } from '../shared/words'
import type { Given } from './apart'
import { read, type Outcome } from './read'

async function outcome(given: Given): Promise<Outcome> {
  try {
    const file = typeof given === 'string' ? new TextEncoder().encode(given) : new Uint8Array(await given.arrayBuffer())
    return read(file, await loadVerifier())
  } catch (error) {
    return { kind: 'unreadable', why: errorText(error) }
  }
}

// Loaded at once, so that it is there when the gateway is not.
void loadVerifier().catch(() => undefined)
addEventListener('message', ({ data }: MessageEvent<Given>) => void outcome(data).then((found) => postMessage(found)))
