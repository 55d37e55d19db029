/** What a model writes, by script: hostile, long, rich. The page and its policy are the gateway's own. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { openTab, picture, startBrowser } from './browser.mjs'
import { startLine, startNetwork } from './network.mjs'

const HOSTILE = [
  '<script>window.ran = 1</script>', '<img src=x onerror="window.ran = 2">', '[click](javascript:window.ran=3)', '[click](JaVa\tScRiPt:window.ran=4)',
  '![x](https://stranger.example/pixel.png)', '<iframe srcdoc="<script>parent.ran = 5</script>"></iframe>', '<svg onload="window.ran = 6"></svg>',
  '```"><script>window.ran = 7</script>\ncode\n```', '| <img src=x onerror=window.ran=8> |\n|---|\n| <b onclick=window.ran=9>b</b> |',
  '$\\href{javascript:window.ran=10}{x}$', '$\\htmlData{a=b}{x} \\includegraphics{https://stranger.example/x.png}$', '<a href="data:text/html,<script>1</script>">d</a>',
  '<style>body{display:none}</style>', '[x]: javascript:alert(1)\n\n[x]', '<https://stranger.example>',
].join('\n\n')
const DEEP = ['> '.repeat(3000) + '<img src=x onerror="window.ran = 11">', '*'.repeat(5000), '['.repeat(5000), '- '.repeat(2000)].join('\n\n')

const RICH = `Here is **binary search**, the usual way to find a value in a *sorted* list.

## How it works

1. Look at the middle value.
2. If it is too large, go on in the left half; if it is too small, in the right.
3. Stop when nothing is left.

| Length | Steps at most | Linear search |
|:--|--:|--:|
| 1,000 | 10 | 1,000 |
| 1,000,000 | 20 | 1,000,000 |

\`\`\`python
def search(values: list[int], wanted: int) -> int | None:
    """The index of \`wanted\`, if it is there."""
    low, high = 0, len(values)
    while low < high:
        middle = (low + high) // 2
        if values[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return low if low < len(values) and values[low] == wanted else None
\`\`\`

Each step halves what is left, so it takes $\\lceil \\log_2 n \\rceil$ of them:

$$
T(n) = T\\!\\left(\\frac{n}{2}\\right) + O(1) = O(\\log n)
$$

> The list must be sorted, or nothing of this holds.

- [x] sorted
- [ ] without duplicates
`

const WORDS = 'the sea is deep and the night is long while kings and clowns go by'.split(' ')
const LONG = Array.from({ length: 10_000 }, (_, index) => {
  const word = WORDS[index % WORDS.length]
  if (index % 400 === 0) return `\n\n## Part ${index}\n\n`
  if (index % 400 === 150) return '\n\n```js\n'
  if (index % 400 === 250) return '\n```\n\n'
  if (index % 37 === 0) return ` **${word}**`
  return index % 12 === 0 ? `${word}\n` : ` ${word}`
})
/** Milliseconds of tasks of the page's own thread that took longer than a frame may: by the clock, and by what they computed themselves. */
function longTasks(trace) {
  const { traceEvents } = JSON.parse(trace.toString())
  const threads = new Set(traceEvents.filter(({ name, args }) => name === 'thread_name' && args.name === 'CrRendererMain').map(({ pid, tid }) => `${pid} ${tid}`))
  const tasks = traceEvents.filter(({ name, pid, tid, dur }) => name === 'ThreadControllerImpl::RunTask' && dur > 0 && threads.has(`${pid} ${tid}`))
  const over = (all) => ({ long: all.filter((us) => us > 50_000).length, longest: Math.round(Math.max(0, ...all) / 1000) })
  return { count: tasks.length, clock: over(tasks.map(({ dur }) => dur)), own: over(tasks.map(({ tdur }) => tdur ?? 0)) }
}

/** One paragraph without an end, and a fence that is never closed. */
const LINES = Array.from({ length: 10_000 }, (_, index) => (index % 9 === 0 ? `${WORDS[index % WORDS.length]}\n` : ` ${WORDS[index % WORDS.length]}`))
const FENCE = ['```python\n', ...Array.from({ length: 10_000 }, (_, index) => (index % 9 === 0 ? `x = ${index}\n` : ' + y'))]

const SAID = { hostile: HOSTILE.match(/[\s\S]{1,9}/gu), deep: DEEP.match(/[\s\S]{1,400}/gu), rich: RICH.match(/[\s\S]{1,6}/gu), long: LONG, lines: LINES, fence: FENCE }

let network, line, browser

before(async () => {
  network = await startNetwork(['--workers', '1', '--validators', '0'])
  line = await startLine(network.origin, (body) => SAID[JSON.parse(body).messages.at(-1).content] ?? null)
  browser = await startBrowser()
})

after(async () => {
  await browser?.close()
  await line?.stop()
  await network?.stop()
})

test('nothing that a model writes runs, loads or leads elsewhere', async () => {
  const { context, tab, chat } = await openTab(browser, line.origin)
  await chat.ready()
  await chat.askAndWait('hostile')
  await tab.waitForTimeout(1000)
  const found = await tab.evaluate(() => ({
    ran: window.ran,
    elements: [...document.querySelectorAll('.markdown :is(script, iframe, img, object, embed, style, svg:not(.katex svg), [onclick], [onerror], [onload])')].map(({ outerHTML }) => outerHTML),
    links: [...document.querySelectorAll('.markdown a')].map((link) => link.protocol),
    isVisible: getComputedStyle(document.body).display !== 'none',
  }))
  assert.deepEqual({ ...found, links: [...new Set(found.links)] }, { ran: undefined, elements: [], links: ['https:'], isVisible: true })
  assert.deepEqual(tab.strangers, [])
  assert.deepEqual(tab.problems, [])
  const text = await chat.text()
  for (const shown of ['<script>window.ran = 1</script>', 'Image: x', '<iframe']) assert.ok(text.includes(shown), shown)
  await context.close()
})

test('what is nested beyond measure is shown as it is', async () => {
  const { context, tab, chat } = await openTab(browser, line.origin)
  await chat.ready()
  await chat.askAndWait('deep')
  assert.equal(await tab.evaluate(() => window.ran), undefined)
  assert.ok((await chat.text()).includes('onerror'))
  assert.deepEqual(tab.problems, [])
  await context.close()
})

test('names of models are text', async () => {
  const { context, tab, chat } = await openTab(browser, line.origin)
  await tab.route('**/v1/models', async (route) => {
    const list = await (await route.fetch()).json()
    list.data[0].id = '<img src=x onerror="window.ran=1">'
    list.data[0].surety.note = '<script>window.ran=2</script>'
    await route.fulfill({ json: list })
  })
  await tab.reload()
  await chat.ready()
  await tab.locator('.model-button').click()
  await tab.getByRole('dialog', { name: 'Models' }).getByText('<script>window.ran=2</script>').waitFor()
  assert.equal(await tab.evaluate(() => window.ran), undefined)
  assert.deepEqual(tab.problems, [])
  await context.close()
})

test('tables, code, formulas and lists are set', async () => {
  for (const [name, options] of [['light', {}], ['dark', { colorScheme: 'dark' }], ['phone', { viewport: { width: 375, height: 740 }, isMobile: true, hasTouch: true }]]) {
    const { context, tab, chat } = await openTab(browser, line.origin, options)
    await chat.ready()
    await chat.askAndWait('rich')
    await tab.locator('.katex').nth(1).waitFor()
    await tab.locator('.hljs-keyword').first().waitFor()
    assert.equal(await tab.locator('.markdown table tbody tr').count(), 2)
    assert.ok(await tab.evaluate(() => document.documentElement.scrollWidth <= innerWidth && document.querySelector('.conversation').scrollWidth <= innerWidth))
    await tab.getByRole('button', { name: 'Copy code' }).click()
    assert.match(await tab.evaluate(() => navigator.clipboard.readText()), /^def search\(values[\s\S]*None$/)
    await tab.evaluate(() => document.querySelector('.scroller').scrollTo(0, 0))
    await tab.waitForTimeout(300)
    await picture(tab, `${name}-rich`)
    assert.deepEqual(tab.problems, [])
    await context.close()
  }
})

test('10,000 tokens come without the page standing still', async () => {
  for (const name of ['long', 'lines', 'fence']) {
    const { context, tab, chat } = await openTab(browser, line.origin)
    await chat.ready()
    await tab.evaluate(() => {
      // Of blocks that are settled, none may be made again.
      window.removed = 0
      new MutationObserver((records) => {
        for (const { target, removedNodes } of records) if (target.classList?.contains('markdown')) window.removed += removedNodes.length
      }).observe(document.body, { subtree: true, childList: true })
    })
    await browser.startTracing(tab, { categories: ['toplevel'] })
    await chat.ask(name)
    await tab.locator('article:not(.yours)[data-state="whole"]').waitFor({ timeout: 180_000 })
    const { count, clock, own } = longTasks(await browser.stopTracing())
    const seen = await tab.evaluate(() => ({ removed: window.removed, blocks: document.querySelectorAll('.markdown > *').length }))
    // Times depend on the machine, and are told; how often something was made anew does not.
    console.log(`${name}: ${seen.blocks} blocks, ${seen.removed} made anew; of ${count} tasks ${own.long} computed for more than 50 ms (the longest ${own.longest} ms), ${clock.long} took more by the clock (the longest ${clock.longest} ms)`)
    assert.ok(count > 0, 'the trace has the page’s tasks')
    assert.ok(seen.removed <= 4 * seen.blocks, JSON.stringify(seen))
    assert.equal((await chat.text()).replace(/\s/g, '').length > 15_000, true)
    if (name === 'long') await picture(tab, 'long')
    assert.deepEqual(tab.problems, [])
    await context.close()
  }
})
