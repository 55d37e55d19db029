// Has the verifier that pages load judge what `agreement.rs` wrote down: node agreement.mjs VERIFIER CASES. Says how long a receipt takes.
import { closeSync, openSync, readFileSync, readSync } from 'node:fs'

const [verifier, cases] = process.argv.slice(2)
const { instance } = await WebAssembly.instantiate(readFileSync(verifier), {})
const { memory, reserve, verify } = instance.exports
const judge = (file) => {
  const at = reserve(file.length) >>> 0
  if (at === 0) throw new Error('there is no room for a file')
  new Uint8Array(memory.buffer).set(file, at)
  return verify(file.length) >>> 0
}

const log = openSync(cases)
const head = Buffer.alloc(8)
let [count, held, wrong] = [0, 0, 0]
let real
while (readSync(log, head) === 8) {
  const file = Buffer.alloc(head.readUInt32LE(0))
  for (let at = 0; at < file.length; ) at += readSync(log, file, at, file.length - at, null)
  const expected = head.readUInt32LE(4)
  const found = judge(file)
  real ??= file
  count += 1
  held += Number(found === 0)
  // The number of the fault is compared, too.
  if (found !== expected) {
    wrong += 1
    if (wrong < 5) console.error(`expected ${expected}, found ${found}: ${file.subarray(0, 2000)}`)
  }
}
closeSync(log)
for (let n = 0; n < 200; n++) judge(real)
const times = Array.from({ length: 200 }, () => {
  const before = process.hrtime.bigint()
  judge(real)
  return Number(process.hrtime.bigint() - before) / 1e6
}).sort((a, b) => a - b)
console.log(`${count} receipts, ${held} of which hold: ${count - wrong} judged as by the native verifier; ${times[100].toFixed(2)} ms for ${real.length} bytes with four signatures (median)`)
if (wrong > 0 || count < 10_000) process.exit(1)
