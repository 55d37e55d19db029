/** A worker that is killed in mid-answer. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { openTab, picture, startBrowser } from './browser.mjs'
import { startLine, startNetwork } from './network.mjs'

let browser

before(async () => (browser = await startBrowser()))
after(async () => browser?.close())

test('a worker is killed in mid-answer: another goes on, and the page says so quietly', async () => {
  const network = await startNetwork(['--workers', '4', '--validators', '0', '--threads', '1'])
  const line = await startLine(network.origin)
  line.state.isEndless = true
  try {
    const { context, tab, chat } = await openTab(browser, line.origin)
    await chat.ready()
    const pids = new Map(network.workers.map(({ id, pid }) => [id, pid]))
    let isHandedOver = false
    // The demonstration is quick: an answer may be whole before its worker is found and killed. Each is killed once: it comes back under another number.
    for (let tries = 0; pids.size > 0 && !isHandedOver && tries < 12; tries += 1) {
      await chat.button('New chat').click()
      await chat.wish({ 'Longest answer': 900, Temperature: 1, Seed: 12 + tries })
      await chat.ask('Tell of the kings, and leave nothing out.')
      await chat.untilLength(1)
      const status = await (await fetch(`${network.origin}/v1/network/status`)).json()
      const busy = status.workers.find((worker) => worker.measured.orders > 0)
      const pid = pids.get(busy?.id)
      if (pid) {
        pids.delete(busy.id)
        process.kill(pid, 'SIGKILL')
      }
      await chat.until('whole')
      isHandedOver = await tab.getByText('Another worker took over after').isVisible()
    }
    assert.ok(isHandedOver)
    await picture(tab, 'handover')
    await chat.chip().click()
    await tab.getByText('(1 handover)').waitFor()
    assert.deepEqual([tab.problems, tab.strangers], [[], []])
    await context.close()
  } finally {
    await line.stop()
    await network.stop()
  }
})
