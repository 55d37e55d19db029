import { readdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vite'

const folder = fileURLToPath(new URL('.', import.meta.url))
const tests = readdirSync(folder).filter((name) => name.endsWith('.test.ts'))

/** The unit tests, for `node --test`. */
export default defineConfig({
  root: folder,
  logLevel: 'warn',
  build: {
    ssr: true,
    target: 'node20',
    minify: false,
    outDir: 'out',
    emptyOutDir: true,
    rollupOptions: { input: Object.fromEntries(tests.map((name) => [name.replace('.ts', ''), folder + name])), output: { entryFileNames: '[name].mjs' } },
  },
})
