// Makes of what Vite built what the gateway embeds: the service worker with its list of files, each file's compressed forms,
// and `table.rs`, by which the gateway knows them all. The same input gives the same bytes; compressed bytes may differ between versions of
// zlib, so `verify.mjs` compares what they hold.
import { createHash } from 'node:crypto'
import { readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { brotliCompressSync, constants, gzipSync } from 'node:zlib'

const dist = fileURLToPath(new URL('../dist/', import.meta.url))

const CONTENT_TYPES = {
  css: 'text/css; charset=utf-8',
  html: 'text/html; charset=utf-8',
  js: 'text/javascript; charset=utf-8',
  svg: 'image/svg+xml',
  wasm: 'application/wasm',
  webmanifest: 'application/manifest+json',
  woff2: 'font/woff2',
}

const extension = (name) => name.slice(name.lastIndexOf('.') + 1)
const digest = (bytes) => createHash('sha256').update(bytes).digest('hex').slice(0, 32)
const files = () =>
  readdirSync(dist, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(dist, join(entry.parentPath, entry.name)))
    .sort()

// A page's name is its path: `index.html` is `/`, `verify.html` would be `/verify`.
const urlOf = (name) => '/' + (name === 'index.html' ? '' : name.replace(/\.html$/, ''))

for (const name of files()) {
  if (!(extension(name) in CONTENT_TYPES)) throw new Error(`${name} has no content type here`)
}

const worker = readFileSync(new URL('./service-worker.js', import.meta.url), 'utf8')
const cached = files().map((name) => [urlOf(name), digest(readFileSync(join(dist, name)))])
writeFileSync(
  join(dist, 'service-worker.js'),
  worker
    .replace('__VERSION__', digest(JSON.stringify(cached)))
    .replace('__PATHS__', JSON.stringify(cached.map(([url]) => url))),
)

const rows = files().map((name) => {
  const bytes = readFileSync(join(dist, name))
  const forms = { brotli: 'None', gzip: 'None' }
  const compressed = [
    ['brotli', 'br', () => brotliCompressSync(bytes, { params: { [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length } })],
    ['gzip', 'gz', () => gzipSync(bytes, { level: 9 })],
  ]
  for (const [form, suffix, compress] of extension(name) === 'woff2' ? [] : compressed) {
    const shorter = compress()
    if (shorter.length >= bytes.length) continue
    writeFileSync(join(dist, `${name}.${suffix}`), shorter)
    forms[form] = `Some(include_bytes!("${name}.${suffix}"))`
  }
  return `    Asset {
        path: "${urlOf(name)}",
        content_type: "${CONTENT_TYPES[extension(name)]}",
        etag: "W/\\"${digest(bytes)}\\"",
        is_named_by_digest: ${name.startsWith('assets/')},
        plain: include_bytes!("${name}"),
        brotli: ${forms.brotli},
        gzip: ${forms.gzip},
    },`
})
rmSync(join(dist, 'table.rs'), { force: true })
writeFileSync(join(dist, 'table.rs'), `&[\n${rows.join('\n')}\n]\n`)
