/** A worker lies, and is convicted on a real chain: what is taken of its operator's stake is on the pages when it is so. */
import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { after, before, test } from 'node:test'
import { promisify } from 'node:util'
import { createPublicClient, http } from 'viem'
import { openTab, picture, startBrowser } from './browser.mjs'
import { BINARY, startNetwork } from './network.mjs'

const LOOK_MS = 20
const ASKED_MAX = 600
/** Of what is bonded to an operator something was taken. */
const PENALIZED = { type: 'event', name: 'Penalized', inputs: [
  { name: 'operator', type: 'address', indexed: true }, { name: 'amount', type: 'uint256' }, { name: 'paid', type: 'uint256' },
] }

let folder, network, liar, browser
const contexts = []

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'surety-liar-'))
  network = await startNetwork(['--workers', '1', '--validators', '1', '--threads', '1'], ['--data-dir', folder])
  browser = await startBrowser()
})

after(async () => {
  await browser?.close()
  if (liar && liar.exitCode === null) {
    liar.kill('SIGKILL')
    await once(liar, 'exit')
  }
  await network?.stop()
  await rm(folder, { recursive: true, force: true })
})

/** Asks until there is something. */
async function until(ask) {
  for (;;) {
    const found = await ask()
    if (found) return found
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS))
  }
}

/** A worker that ends its answers early and says that the model did; its key. */
async function startLiar() {
  const args = ['worker', 'run', '--json', '--data-dir', folder, '--threads', '1', '--kv-bytes', '134217728', '--key', 'worker-4', '--account', 'worker-4-operator']
  liar = spawn(BINARY, [...args, '--genesis', join(folder, 'ledger/genesis.json'), '--rpc-url', network.rpc_url, '--lie', 'early-stop'], { stdio: ['ignore', 'pipe', 'pipe'] })
  let log = ''
  liar.stderr.on('data', (data) => (log = (log + data).slice(-10_000)))
  const ready = await new Promise((resolve, reject) => {
    createInterface(liar.stdout).once('line', (line) => resolve(JSON.parse(line)))
    liar.once('exit', (code) => reject(new Error(`the worker ended (${code}): ${log}`)))
  })
  return ready.address.split('@')[0]
}

/** A lie of its: an answer that it cut off after a quarter. */
async function lie(worker) {
  for (let seed = 0; seed < ASKED_MAX; seed += 1) {
    const body = { model: 'shakespeare-demo', messages: [{ role: 'user', content: 'Who goes there?' }], max_tokens: 32, seed, temperature: 0.8, surety: { worker } }
    const response = await fetch(`${network.origin}/v1/chat/completions`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) })
    const answer = await response.json()
    if (response.status === 200 && answer.choices[0].finish_reason === 'stop' && answer.usage.completion_tokens === 8) return answer.surety.request_id
    if (response.status !== 200) await new Promise((resolve) => setTimeout(resolve, 250))
  }
  throw new Error('the worker told no lie')
}

async function open(path) {
  const { context, tab } = await openTab(browser, network.origin)
  context.setDefaultTimeout(90_000)
  contexts.push(context)
  await tab.goto(`${network.origin}${path}`)
  await tab.getByText('Live', { exact: true }).waitFor()
  return tab
}

test('an operator is slashed: its view and Economics say so', async (t) => {
  const worker = await startLiar()
  const operator = await until(async () => (await (await fetch(`${network.origin}/v1/network/live`)).json()).workers.find((one) => one.id === worker)?.operator)
  const [view, economics] = [await open(`/network#operator=${operator}`), await open('/economics')]
  const figure = (label) => view.locator('dl > div', { has: view.locator('dt', { hasText: label }) }).first().locator('dd').first()
  await figure('Convictions').getByText('0', { exact: true }).waitFor()
  const stake = await figure('Stake').innerText()
  await economics.locator('tr', { has: economics.locator(`[title="${operator}" i]`), hasText: 'none' }).first().waitFor()

  const rpc = createPublicClient({ transport: http(network.rpc_url) })
  const events = []
  const seen = (what) => () => events.push([what, Date.now()])
  const changed = ([label, was]) => [...document.querySelectorAll('dl > div')].some((one) => one.querySelector('dt')?.textContent === label && one.querySelector('dd')?.textContent !== was)
  const watching = Promise.all([
    view.getByText('Convicted: its workers are out of service until').waitFor().then(seen('the operator’s view tells of the conviction')),
    view.waitForFunction(changed, ['Stake', stake], { polling: LOOK_MS }).then(seen('the operator’s view shows what is left of its stake')),
    economics.getByText('1 convicted').first().waitFor().then(seen('Economics counts it')),
  ])
  let penalty
  const landed = until(async () => ([penalty] = await rpc.getLogs({ event: PENALIZED, args: { operator }, fromBlock: 0n }))[0]).then(() => Date.now())
  const id = await lie(worker)
  // An auditor may be there first: then the ledger takes no second accusation.
  const contested = promisify(execFile)(BINARY, ['dispute', 'open', id, '--data-dir', folder, '--account', 'worker-8-operator', '--json']).catch((error) => error)
  const [blockAt] = await Promise.all([landed, watching, contested])
  const { timestamp } = await rpc.getBlock({ blockNumber: penalty.blockNumber })
  assert.ok(penalty.args.amount > 0n)
  for (const [what, at] of events) {
    t.diagnostic(`${what} ${at - blockAt} ms after its block was heard of`)
    assert.ok(at >= Number(timestamp) * 1000, `${what}: not before the ledger says so`)
  }
  await view.getByRole('row', { name: /the answer was stopped, and not by the model/ }).waitFor()
  await view.getByText(/surety dispute show \d/).waitFor()
  await picture(view, 'operator-convicted')
  await picture(economics, 'economics-slashed')
  for (const context of contexts) {
    for (const tab of context.pages()) assert.deepEqual([tab.problems ?? [], tab.strangers ?? []], [[], []])
    await context.close()
  }
})
