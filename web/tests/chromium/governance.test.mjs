/** What the ledger shows of itself: powers, economics and governance follow a chain that is governed, and a wallet votes through the page. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { toHex } from 'viem'
import { serious } from './axe.mjs'
import { picture, startBrowser, watch } from './browser.mjs'
import { injectWallet, startLedger } from './ledger.mjs'

const PAGES = ['powers', 'economics', 'governance']

let ledger, browser
const tabs = []

before(async () => {
  ledger = await startLedger()
  browser = await startBrowser()
})

after(async () => {
  await browser?.close()
  await ledger?.stop()
  for (const tab of tabs) assert.deepEqual([tab.problems, tab.strangers], [[], []])
})

async function open(page, options = {}, prepare = async () => {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options })
  context.setDefaultTimeout(60_000)
  await prepare(context)
  const tab = await watch(await context.newPage())
  tabs.push(tab)
  await tab.goto(`${ledger.origin}/${page}`)
  return tab
}

const loaded = (tab) => tab.getByText('Live', { exact: true }).waitFor()
const row = (tab, what) => tab.locator('tr', { has: tab.getByRole('rowheader', { name: what, exact: true }) })
const proposal = (tab, id) => tab.locator(`[data-proposal="${id}"]`)

/** Waits until the chain's own clock has brought a proposal into a state. */
async function until(id, state) {
  while ((await ledger.state(id)) !== state) await new Promise((resolve) => setTimeout(resolve, 100))
}

test('a centralised network is stage 0 and red, and nothing makes it look better', async () => {
  const tab = await open('powers')
  await tab.locator('[data-stage="0"]').waitFor()
  await tab.getByText('One key is the whole chain').waitFor()
  const risks = await tab.locator('[data-risk]').evaluateAll((all) => all.map((one) => [one.querySelector('dt')?.firstChild?.textContent?.trim(), one.dataset.risk]))
  for (const [name, risk] of risks) assert.equal(risk, name === 'Verification' ? 'medium' : 'high', name)
  assert.equal(risks.length, 6)
  assert.match(await tab.locator('.least').first().innerText(), /\b1 of 1\b/)
  assert.ok((await tab.getByRole('cell', { name: 'unknown', exact: true }).count()) >= 6, 'what nobody knows is said to be unknown')
  assert.match(await row(tab, 'Act past the timelock in an emergency').innerText(), /no council/)
  await tab.getByText(/^\d+ functions in \d+ modules$/).click()
  await tab.getByText('proposeUpgradeCancellation').waitFor()
  await picture(tab, 'powers-open')
})

test('every credit is somewhere, and the page says so', async () => {
  const tab = await open('economics')
  await loaded(tab)
  const together = tab.locator('tfoot tr')
  assert.equal(await together.getAttribute('data-accounted'), 'true')
  assert.match(await together.innerText(), /13,000/)
  await tab.getByText('a <b>stranger’s</b>').waitFor()
})

test('what governance decides is on the pages when it is so; a wallet decides through the page', async (t) => {
  let wallet
  const watching = await open('powers')
  const tab = await open('governance', {}, async (context) => (wallet = await injectWallet(context, ledger.stranger)))
  await tab.getByText('Nothing is being decided.').waitFor()
  assert.match(await row(watching, 'Change a parameter').innerText(), /2 minutes 1 second/)

  const changes = [{ name: toHex('timelock_s', { size: 32 }), value: 120n }]
  const title = 'later <img src=x onerror="window.ran = 1">'
  await ledger.govern(ledger.operator, 'proposeParameters', [changes, title])
  const proposed = Date.now()
  await proposal(tab, 1).waitFor()
  t.diagnostic(`a proposal is shown ${Date.now() - proposed} ms after its block was heard of`)
  await tab.getByText(title, { exact: false }).waitFor()
  assert.match(await proposal(tab, 1).innerText(), /timelock_s\s+1 minute 1 second\s+→/)
  const upgrade = { height: 1_000_000n, version: '9.0.0', sourceRevision: `0x${'ab'.repeat(32)}`, binaryHashes: [`0x${'cd'.repeat(32)}`] }
  await ledger.govern(ledger.operator, 'proposeUpgrade', [upgrade, 'nine'])
  await ledger.govern(ledger.operator, 'vote', [2n, 1])
  await proposal(tab, 2).getByText('9.0.0, from block 1,000,000 on').waitFor()
  await picture(tab, 'governance-voting')

  // Who has bonded nothing is told so before anything is sent; who declines has sent nothing.
  const vote = proposal(tab, 1).getByRole('button', { name: 'Vote for' })
  await vote.click()
  await proposal(tab, 1).getByText(/bonded nothing/).waitFor()
  assert.ok(wallet.asked.includes('wallet_addEthereumChain') && !wallet.asked.includes('eth_sendTransaction'), wallet.asked.join())
  assert.equal(wallet.chains.get(ledger.chainId), new URL(ledger.rpcUrl).origin)
  wallet.account = ledger.operator
  wallet.isDeclining = true
  await vote.click()
  await proposal(tab, 1).getByText('You declined it in the wallet. Nothing was sent.').waitFor()
  wallet.isDeclining = false
  await vote.click()
  await proposal(tab, 1).getByText(/^Vote for: in a block/).waitFor()
  await proposal(tab, 1).locator('[data-votes="for"]', { hasText: '10,000' }).waitFor()
  await proposal(tab, 1).locator('dd', { hasText: /^reached/ }).waitFor()

  await until(1, 3)
  await proposal(tab, 1).getByRole('button', { name: 'Start the timelock' }).click()
  await tab.locator('[data-proposal="1"]:is([data-state="queued"], [data-state="executable"])').waitFor()
  await until(2, 3)
  await ledger.govern(ledger.operator, 'queue', [2n])
  await until(2, 5)
  await watching.getByText('None is scheduled.').waitFor()
  await ledger.govern(ledger.operator, 'execute', [2n])
  const scheduled = Date.now()
  await watching.locator('[data-upgrade="9.0.0"]').waitFor()
  t.diagnostic(`an upgrade plan is shown ${Date.now() - scheduled} ms after its block was heard of`)
  await watching.getByText(`0x${'cd'.repeat(32)}`).waitFor()
  await picture(watching, 'powers-upgrade')
  await until(1, 5)
  await proposal(tab, 1).getByRole('button', { name: 'Execute' }).waitFor()
  await ledger.govern(ledger.operator, 'execute', [1n])
  const executed = Date.now()
  await watching.waitForFunction(() => [...document.querySelectorAll('tr')].some((row) => row.innerText.includes('Change a parameter') && row.innerText.includes('3 minutes')), undefined, { polling: 20 })
  t.diagnostic(`a changed parameter is shown ${Date.now() - executed} ms after its block was heard of`)
  assert.match(await row(watching, 'Change a parameter').innerText(), /Proposal 1/)
  await tab.locator('[data-proposal="1"][data-state="executed"]').waitFor()
  assert.match(await row(tab, 'timelock_s').innerText(), /2 minutes/)
  assert.equal(await tab.evaluate(() => window.ran), undefined)
})

test('without a wallet the page shows the command line', async () => {
  const tab = await open('governance')
  const changes = [{ name: toHex('quorum_bps', { size: 32 }), value: 5000n }]
  await ledger.govern(ledger.operator, 'proposeParameters', [changes, 'more votes'])
  await proposal(tab, 3).getByText('surety gov vote 3 for --account NAME').waitFor()
  await tab.getByText('No wallet was found in this browser').waitFor()
})

test('light and dark, wide and on a phone; nothing serious for axe', async () => {
  for (const [colorScheme, width] of [['light', 1280], ['dark', 1280], ['light', 375], ['dark', 375]]) {
    for (const page of PAGES) {
      const tab = await open(page, { colorScheme, viewport: { width, height: 820 } })
      await loaded(tab)
      if (process.env.PICTURES) await tab.screenshot({ path: `${process.env.PICTURES}/${page}-${colorScheme}-${width}.png`, fullPage: true })
      assert.ok(await tab.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${page} is wider than ${width}`)
      if (width === 1280) assert.deepEqual(await serious(tab), [], `${page}, ${colorScheme}`)
      await tab.context().close()
    }
  }
})

test('a gateway whose ledger is gone says so, and shows what it knew', async () => {
  const tab = await open('powers')
  await loaded(tab)
  ledger.validator.kill('SIGKILL')
  await tab.getByText('The ledger cannot be asked', { exact: false }).waitFor()
  await tab.locator('[data-stage="0"]').waitFor()
})
