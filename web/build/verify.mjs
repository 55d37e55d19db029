// Compares two builds: verify.mjs COMMITTED BUILT. Compressed forms are compared by what they hold: zlib's bytes differ between its versions.
import { readFileSync, readdirSync } from 'node:fs'
import { join, relative } from 'node:path'
import { brotliDecompressSync, gunzipSync } from 'node:zlib'

const [committed, built] = process.argv.slice(2)
const list = (folder) =>
  readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(folder, join(entry.parentPath, entry.name)))
    .sort()
const held = (folder, name) => {
  const bytes = readFileSync(join(folder, name))
  if (name.endsWith('.br')) return brotliDecompressSync(bytes)
  if (name.endsWith('.gz')) return gunzipSync(bytes)
  return bytes
}

const wrong = []
const names = list(built)
for (const name of list(committed)) if (!names.includes(name)) wrong.push(`${name} is committed, and not built`)
for (const name of names) {
  try {
    if (!held(built, name).equals(held(committed, name))) wrong.push(`${name} differs`)
    const plain = name.replace(/\.(br|gz)$/, '')
    if (plain !== name && !held(committed, name).equals(held(committed, plain))) wrong.push(`${name} holds something else than ${plain}`)
  } catch (error) {
    wrong.push(`${name}: ${error.message}`)
  }
}
if (wrong.length > 0) {
  console.error(`web/dist is not what web/ builds; run \`npm run build\` in web/ and commit it:\n  ${wrong.join('\n  ')}`)
  process.exit(1)
}
console.log(`web/dist is what web/ builds (${names.length} files)`)
