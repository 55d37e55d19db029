/** Verifies receipts in the page: the verifier (`crates/verifier`), loaded once, asked nothing but this page's own file. */
import { CHECKS, FAULTS, NOT_CHECKED, type CheckCode, type FaultCode, type NotCheckedCode } from './words'

export interface Found {
  checked: CheckCode[]
  notChecked: NotCheckedCode[]
}

/** Whether a receipt holds: what was checked of the envelope and of each answer, or the first rule that it breaks. */
export type Verdict =
  | { holds: true; envelope: Found; answers: Found[] }
  | { holds: false; code: FaultCode; why: string; answer: number | null }

/** bytes of a file, at most. */
export const MAX_BYTES = 64 * 1024 * 1024

interface Exports {
  memory: WebAssembly.Memory
  reserve(bytes: number): number
  verify(bytes: number): number
  report(): number
}

const FAULT_CODES = Object.keys(FAULTS) as FaultCode[]
const CHECK_CODES = Object.keys(CHECKS) as CheckCode[]
const NOT_CHECKED_CODES = Object.keys(NOT_CHECKED) as NotCheckedCode[]

/** The verifier in a module that was loaded. A receipt that takes it more memory than there is ends its instance, so each has one of its own. */
export class Verifier {
  #module: WebAssembly.Module
  #exports: Exports | null = null

  constructor(module: WebAssembly.Module) {
    this.#module = module
  }

  verify(file: Uint8Array): Verdict {
    if (file.length > MAX_BYTES) return refused('too_long', null)
    this.#exports ??= new WebAssembly.Instance(this.#module).exports as unknown as Exports
    const { memory, reserve, verify, report } = this.#exports
    let found: number
    try {
      const at = reserve(file.length) >>> 0
      if (at === 0) return refused('too_long', null)
      new Uint8Array(memory.buffer).set(file, at)
      found = verify(file.length) >>> 0
    } catch (error) {
      this.#exports = null
      if (error instanceof WebAssembly.RuntimeError) throw new Error('The receipt takes more memory to verify than this browser gives the page.', { cause: error })
      throw error
    }
    if (found !== 0) return refused(FAULT_CODES[(found & 0xff) - 1] ?? 'fields', found >>> 8 ? (found >>> 8) - 1 : null)
    const words = new Uint32Array(memory.buffer, report() >>> 0)
    const one = (at: number): Found => ({ checked: named(words[at] ?? 0, CHECK_CODES), notChecked: named(words[at + 1] ?? 0, NOT_CHECKED_CODES) })
    const answers = Array.from({ length: words[0] ?? 0 }, (_, index) => one(3 + 2 * index))
    const verdict: Verdict = { holds: true, envelope: one(1), answers }
    // A large file leaves nothing behind.
    if (memory.buffer.byteLength > 32 * 1024 * 1024) this.#exports = null
    return verdict
  }
}

const refused = (code: FaultCode, answer: number | null): Verdict => ({ holds: false, code, why: FAULTS[code], answer })

const named = <T>(bits: number, names: T[]): T[] => names.filter((_, bit) => (bits >>> bit) & 1)

let loading: Promise<Verifier> | null = null

/** The verifier, which is part of the page and there without the gateway. */
export function loadVerifier(): Promise<Verifier> {
  loading ??= (async () => {
    const { default: url } = await import('./verifier.wasm?url')
    const response = await fetch(url)
    if (!response.ok) throw new Error(`The verifier cannot be loaded: ${response.status}.`)
    return new Verifier(await WebAssembly.compile(await response.arrayBuffer()))
  })()
  loading.catch(() => (loading = null))
  return loading
}
