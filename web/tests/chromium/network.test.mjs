/** The pages that show the network, in front of networks that are killed and stopped. */
import assert from 'node:assert/strict'
import { after, afterEach, before, test } from 'node:test'
import { serious } from './axe.mjs'
import { openTab, picture, startBrowser } from './browser.mjs'
import { startLine, startNetwork } from './network.mjs'

let browser
const contexts = []
const networks = []

before(async () => (browser = await startBrowser()))
after(async () => browser?.close())

afterEach(async () => {
  for (const context of contexts.splice(0)) {
    for (const tab of context.pages()) assert.deepEqual([tab.problems ?? [], tab.strangers ?? []], [[], []], 'what the page complained of, and whom it asked')
    await context.close()
  }
  for (const network of networks.splice(0)) await network.stop()
})

async function start(args) {
  const network = await startNetwork(args)
  networks.unshift(network)
  return network
}

async function open(origin, path, options = {}) {
  const { context, tab } = await openTab(browser, origin, options)
  contexts.push(context)
  await tab.goto(`${origin}${path}`)
  await tab.getByText('Live', { exact: true }).waitFor()
  return tab
}

const chat = (origin, more = {}) =>
  fetch(`${origin}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model: 'shakespeare-demo', messages: [{ role: 'user', content: 'Speak of the sea.' }], max_tokens: 40, ...more }),
  })

/** Kills a worker, and whatever is started in its place, until it is told to stop. */
function keepDown(network, { pid }) {
  const killed = new Set()
  const kill = (again) => {
    if (killed.has(again)) return
    killed.add(again)
    process.kill(again, 'SIGKILL')
  }
  kill(pid)
  const timer = setInterval(() => {
    for (const [, next] of network.log().matchAll(/^worker \d+ runs again \(process (\d+)\)/gm)) kill(Number(next))
  }, 5).unref()
  return () => clearInterval(timer)
}

const worker = (tab, id) => tab.locator(`[data-worker="${id}"]`)
const part = (tab, kind) => tab.locator(`[data-part="${kind}"]`)

test('the network is seen as it is: a request while it is answered, a worker that is killed', async () => {
  const network = await start(['--workers', '2', '--validators', '0', '--threads', '1'])
  const line = await startLine(network.origin)
  networks.unshift(line)
  const tab = await open(line.origin, '/network')
  for (const { id } of network.workers) await worker(tab, id).getByText('ready').waitFor()
  await tab.getByRole('cell', { name: 'exact' }).waitFor()

  // It is quick: it is asked again until it was seen at work.
  const atWork = tab.locator('.hub.busy').waitFor()
  let isSeen = false
  void atWork.then(() => (isSeen = true))
  while (!isSeen) await (await chat(network.origin, { max_tokens: 900, ignore_eos: true })).text()
  await atWork
  await tab.getByText(/^[1-9][\d,]* tokens a second/).waitFor()
  await tab.locator('.rate').first().waitFor()
  await picture(tab, 'network')

  const [{ id }] = network.workers
  const letLive = keepDown(network, network.workers[0])
  const killed = Date.now()
  await worker(tab, id).getByText('unreachable').waitFor()
  console.log(`a killed worker is shown ${Date.now() - killed} ms after it was killed`)
  await tab.getByRole('row', { name: /fewer hosts/ }).waitFor()
  letLive()

  // The gateway goes: what stands there is said to be old, and it goes on by itself.
  line.cut()
  await tab.getByText('The gateway cannot be reached.').waitFor()
  await tab.getByText(/^As of/).waitFor()
  assert.equal(await worker(tab, id).count(), 1)
  line.mend()
  await tab.getByText('Live', { exact: true }).waitFor()
})

test('a model and an operator have views of their own', async () => {
  const network = await start(['--workers', '2', '--validators', '0'])
  await (await chat(network.origin)).text()
  const tab = await open(network.origin, '/network')
  await tab.getByRole('link', { name: 'shakespeare-demo' }).click()
  await tab.getByRole('heading', { name: 'shakespeare-demo' }).waitFor()
  await tab.getByText('2 workers').waitFor()
  await tab.getByText('Unknown. Nobody has measured').waitFor()
  assert.match(await tab.locator('p.id').innerText(), /^blake3:[0-9a-f]{64}$/)
  await picture(tab, 'model')
  await tab.goBack()
  await tab.getByRole('heading', { name: 'Network', exact: true }).waitFor()

  const { jobs } = await (await fetch(`${network.origin}/v1/network/operators/${network.workers[0].id}`)).json()
  const asked = jobs.length > 0 ? network.workers[0] : network.workers[1]
  await tab.goto(`${network.origin}/network#operator=${asked.id}`)
  await tab.getByText('No ledger lists this worker').waitFor()
  await tab.getByText('brought to its end', { exact: true }).waitFor()
  await tab.getByText(/^Number [12] of 2 workers now/).waitFor()
  await tab.getByRole('row', { name: /Orders that ended well/ }).waitFor()
  await tab.goto(`${network.origin}/network#operator=${encodeURIComponent('<img src=x onerror=alert(1)>')}`)
  await tab.getByText('No worker that this gateway knows is of <img').waitFor()
})

test('status: what was answered and what was not, and by whose doing', async () => {
  const network = await start(['--workers', '1', '--validators', '0', '--threads', '1'])
  const tab = await open(network.origin, '/status')
  await tab.getByRole('cell', { name: 'Nothing was asked yet.' }).waitFor()
  assert.equal(await part(tab, 'settlement').getAttribute('data-state'), 'none')
  for (let count = 0; count < 3; count += 1) assert.equal((await chat(network.origin)).status, 200)
  await tab.getByText('3 of 3 requests').first().waitFor()
  await tab.getByText('Every part is operational').waitFor()

  // Its only worker is killed in the middle of answers; the demonstration may be done before.
  let isBroken = false
  let letLive = () => {}
  for (let tries = 0; tries < 20 && !isBroken; tries += 1) {
    const answer = chat(network.origin, { max_tokens: 900, ignore_eos: true, stream: true }).then((response) => response.text(), String)
    const status = await (await fetch(`${network.origin}/v1/network/status`)).json()
    if (status.workers[0].measured.orders > 0) letLive = keepDown(network, network.workers[0])
    else await new Promise((resolve) => setTimeout(resolve, 5))
    isBroken = !(await answer).includes('[DONE]')
    if (status.workers[0].measured.orders > 0) break
  }
  await part(tab, 'routing').getByText('major outage').waitFor()
  await part(tab, 'model').getByText('major outage').waitFor()
  if (!isBroken) assert.notEqual((await chat(network.origin)).status, 200)
  await tab.locator('[data-incident]').first().waitFor()
  assert.doesNotMatch(await tab.locator('main').innerText(), /req_/)
  await picture(tab, 'status-outage')
  letLive()
})

test('status says that the ledger stands still, and that it goes on', async () => {
  const network = await start(['--workers', '2', '--validators', '4'])
  const tab = await open(network.origin, '/status')
  await part(tab, 'settlement').getByText('operational').waitFor({ timeout: 60_000 })
  await picture(tab, 'status')
  const all = (signal) => network.validators.forEach(({ pid }) => process.kill(pid, signal))
  all('SIGSTOP')
  try {
    await part(tab, 'settlement').getByText(/outage/).waitFor({ timeout: 120_000 })
    await part(tab, 'governance').getByText(/outage/).waitFor()
    await part(tab, 'verification').getByText('degraded').waitFor()
    assert.equal(await part(tab, 'api').getAttribute('data-state'), 'operational')
  } finally {
    all('SIGCONT')
  }
  await part(tab, 'settlement').getByText('operational').waitFor({ timeout: 120_000 })

  // With a ledger, operators have stake, and pages a way to each.
  await tab.goto(`${network.origin}/network`)
  await tab.getByRole('cell', { name: '100 credits' }).first().waitFor()
  await tab.locator('.head a').first().click()
  await tab.getByText('bonded: it answers for wrong work').waitFor()
  await tab.getByRole('row', { name: /Stake that stands for nothing unsettled/ }).first().waitFor()
  await picture(tab, 'operator')
})

test('light and dark, wide and on a phone: nothing serious for axe, and nothing scrolls sideways', async () => {
  const network = await start(['--workers', '2', '--validators', '0'])
  await (await chat(network.origin)).text()
  for (const colorScheme of ['light', 'dark']) {
    for (const width of [1280, 375]) {
      const tab = await open(network.origin, '/network', { colorScheme, viewport: { width, height: 800 } })
      for (const path of ['/network', '/network#model=shakespeare-demo', `/network#operator=${network.workers[0].id}`, '/status']) {
        await tab.goto(`${network.origin}${path}`)
        await tab.locator('dl').first().waitFor()
        assert.deepEqual(await serious(tab), [], `${path}, ${colorScheme}, ${width}`)
        assert.ok(await tab.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${path} at ${width}`)
        await picture(tab, `${colorScheme}-${width}-${path.replace(/[^a-z]+/g, '-').slice(1, 20)}`)
      }
    }
  }
})

test('by keyboard: to the content, along the pages, through a table', async () => {
  const network = await start(['--workers', '2', '--validators', '0'])
  const tab = await open(network.origin, '/network')
  await tab.keyboard.press('Tab')
  await tab.getByRole('link', { name: 'To the content' }).press('Enter')
  assert.equal(await tab.evaluate(() => document.activeElement?.id), 'main')
  const sort = tab.getByRole('columnheader', { name: 'Worker' }).getByRole('button')
  const keys = () => tab.locator('section', { hasText: 'Ended well' }).locator('tbody th .key').allInnerTexts()
  await sort.focus()
  await tab.keyboard.press('Enter')
  const ascending = await keys()
  await tab.keyboard.press('Enter')
  assert.deepEqual(await keys(), ascending.toReversed())
  await tab.getByRole('link', { name: 'Status', exact: true }).focus()
  await tab.keyboard.press('Enter')
  await tab.getByRole('heading', { name: 'Status', exact: true }).waitFor()
  assert.equal(await tab.getByRole('link', { name: 'Status', exact: true }).getAttribute('aria-current'), 'page')
})
