/** Whether a receipt is in its operator's log: the Merkle path of RFC 9162 §2.1.3.2, hashed in the page. The root is the gateway's word of the ledger. */

/** As `GET /v1/receipts/{id}/ledger` gives it. */
export interface Inclusion {
  state: string
  epoch: number | null
  index: number | null
  size: number | null
  root: string | null
  path: string[]
}

const HASHES_MAX = 48

/** Whether the path leads from the receipt, by its digest, to the root. Throws where the browser hashes nothing: a page that came neither by https nor from this machine. */
export async function leadsToRoot(receipt: string, { index, size, root, path }: Inclusion): Promise<boolean> {
  const entry = bytesOf(receipt)
  const hashes = path.map(bytesOf)
  const isPlace = Number.isSafeInteger(index) && Number.isSafeInteger(size) && (index as number) >= 0 && (index as number) < (size as number)
  if (entry === null || root === null || !isPlace || hashes.length > HASHES_MAX || hashes.includes(null)) return false
  let position = BigInt(index as number)
  let last = BigInt(size as number) - 1n
  let hash = await sha256([0], entry)
  for (const sibling of hashes as Uint8Array[]) {
    if (last === 0n) return false
    if (position & 1n || position === last) {
      hash = await sha256([1], sibling, hash)
      while (!(position & 1n) && position !== 0n) {
        position >>= 1n
        last >>= 1n
      }
    } else hash = await sha256([1], hash, sibling)
    position >>= 1n
    last >>= 1n
  }
  const reached = Array.from(hash, (byte) => byte.toString(16).padStart(2, '0')).join('')
  return last === 0n && reached === root
}

async function sha256(...parts: (Uint8Array | number[])[]): Promise<Uint8Array> {
  const bytes = Uint8Array.from(parts.flatMap((part) => [...part]))
  return new Uint8Array(await crypto.subtle.digest('SHA-256', bytes))
}

function bytesOf(hex: string): Uint8Array | null {
  if (!/^[0-9a-f]{64}$/.test(hex)) return null
  return Uint8Array.from(hex.match(/../g) ?? [], (byte) => parseInt(byte, 16))
}
