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

export default defineConfig({
  plugins: [woff2Only(), svelte()],
  build: {
    target: 'es2022',
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    // One entry for each page.
    rollupOptions: { input: { chat: 'index.html' } },
  },
  server: { proxy: { '/v1': 'http://127.0.0.1:8080' } },
})
