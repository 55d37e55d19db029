import { readdirSync } from 'node:fs'
import { svelte } from '@sveltejs/vite-plugin-svelte'
import { defineConfig, type Plugin } from 'vite'

/** Every browser that runs these pages reads WOFF2; the older forms of KaTeX's fonts would only make the binary larger. */
function woff2Only(): Plugin {
  return {
    name: 'woff2-only',
    enforce: 'pre',
    transform(code, id) {
      if (!/katex.*\.css$/.test(id)) return null
      return code.replace(/,\s*url\([^)]*\)\s*format\(["'](?:woff|truetype)["']\)/g, '')
    },
  }
}

// Each page is a file here and an entry: `index.html` is the chat at `/`, `network.html` is served at `/network`.
const pages = readdirSync(import.meta.dirname)
  .filter((name) => name.endsWith('.html'))
  .sort()

export default defineConfig({
  plugins: [woff2Only(), svelte()],
  // Pages link to those pages that there are.
  define: { __PAGES__: JSON.stringify(pages.map((name) => '/' + name.replace(/(index)?\.html$/, ''))) },
  worker: { format: 'es' },
  build: {
    target: 'es2022',
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rollupOptions: { input: Object.fromEntries(pages.map((name) => [name === 'index.html' ? 'chat' : name.replace('.html', ''), name])) },
  },
  server: { proxy: { '/v1': 'http://127.0.0.1:8080' } },
})
