/** Figures of every page: what is loaded, from whom, and how soon something is seen. Sizes and requests are held; times depend on the machine, and are told. */
import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { after, before, test } from 'node:test'
import { serious } from './axe.mjs'
import { startBrowser, watch } from './browser.mjs'
import { startNetwork } from './network.mjs'

/** Compressed by gzip, of scripts that are loaded at once. */
const SCRIPT_BYTES_MAX = 120_000
/** As `vite.config.ts` finds them. */
const PAGES = readdirSync(new URL('../..', import.meta.url)).filter((name) => name.endsWith('.html')).map((name) => `/${name.replace(/(index)?\.html$/, '')}`)

let network, browser

before(async () => {
  network = await startNetwork(['--workers', '1', '--validators', '1'])
  browser = await startBrowser()
})

after(async () => {
  await browser?.close()
  await network?.stop()
})

const gzipped = async (url) => (await (await fetch(url, { headers: { 'accept-encoding': 'gzip' } })).arrayBuffer(), Number((await fetch(url, { method: 'GET', headers: { 'accept-encoding': 'gzip' } })).headers.get('content-length')))

test('every page: scripts, requests, first paint, long tasks, axe', async (t) => {
  assert.ok(PAGES.includes('/') && PAGES.length >= 7, PAGES.join())
  for (const page of PAGES) {
    // Nothing of it is known to the browser yet; no service worker adds requests of its own.
    const context = await browser.newContext({ viewport: { width: 1280, height: 820 }, serviceWorkers: 'block' })
    const tab = await watch(await context.newPage())
    await tab.addInitScript(() => {
      window.tasks = []
      new PerformanceObserver((list) => window.tasks.push(...list.getEntries().map(({ duration }) => Math.round(duration)))).observe({ type: 'longtask', buffered: true })
    })
    const policy = (await tab.goto(`${network.origin}${page}`)).headers()['content-security-policy']
    await tab.locator('main, .conversation, #composer').first().waitFor()
    if (page !== '/' && page !== '/verify') await tab.getByText('Live', { exact: true }).waitFor()
    const paint = await tab.waitForFunction(() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime)
    const { scripts, urls, tasks } = await tab.evaluate(() => {
      const all = performance.getEntriesByType('resource')
      const scripts = all.filter(({ name }) => name.endsWith('.js')).map(({ name }) => name)
      return { scripts, urls: all.map(({ name }) => name), tasks: window.tasks }
    })
    let bytes = 0
    for (const url of scripts) bytes += await gzipped(url)
    const found = await serious(tab)
    t.diagnostic(`${page.padEnd(12)} first paint ${Math.round(await paint.jsonValue())} ms; ${scripts.length} scripts, ${(bytes / 1000).toFixed(1)} kB gzipped; ${urls.length} requests; tasks over 50 ms: ${tasks.join(', ') || 'none'}`)
    assert.ok(scripts.length > 0 && bytes > 0 && bytes <= SCRIPT_BYTES_MAX, `${page}: ${bytes} bytes of script`)
    assert.deepEqual(urls.filter((url) => new URL(url).origin !== network.origin), [], page)
    assert.doesNotMatch(policy, /'unsafe-|[ ;]\*|https?:/, page)
    assert.deepEqual([tab.strangers, tab.problems, found], [[], [], []], page)
    await context.close()
  }
})
