/** The explorer on a real ledger: blocks as they come, a transaction by name, search; and disputes' stories as a gateway told them. */
import assert from 'node:assert/strict'
import { readFileSync, readdirSync } from 'node:fs'
import { after, before, test } from 'node:test'
import { toHex } from 'viem'
import { serious } from './axe.mjs'
import { picture, startBrowser, watch } from './browser.mjs'
import { startLedger } from './ledger.mjs'

/** What `/v1/network/disputes/{id}` said of disputes between real processes. */
const STORIES = new URL('../stories/', import.meta.url)
const PHONE = { viewport: { width: 375, height: 740 } }

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

async function open(hash = '', options = {}, prepare = async () => {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options })
  context.setDefaultTimeout(60_000)
  await prepare(context)
  const tab = await watch(await context.newPage())
  tabs.push(tab)
  await tab.goto(`${ledger.origin}/explorer${hash}`)
  return tab
}

/** Nothing sticks out of a phone, and nothing serious is found. */
async function isSound(tab) {
  assert.deepEqual(await serious(tab), [])
  assert.ok((await tab.evaluate(() => document.documentElement.scrollWidth - innerWidth)) <= 0, 'it fits')
}

async function search(tab, text) {
  await tab.getByRole('textbox', { name: 'Search the ledger' }).fill(text)
  await tab.keyboard.press('Enter')
}

test('blocks appear while one looks, and stay where they are while one points at them', async () => {
  const tab = await open()
  await tab.getByText('Live', { exact: true }).waitFor()
  assert.equal(await tab.locator('nav[aria-label="Pages"] a[aria-current="page"]').innerText(), 'Explorer')
  const first = tab.locator('tbody th a').first()
  const before = await first.innerText()
  await tab.waitForFunction((known) => document.querySelector('tbody th a')?.textContent !== known, before)
  await tab.getByText(/Proven at block/).first().waitFor()
  await tab.getByText(/^\d+ blocks in .*: one every/).waitFor()
  await isSound(tab)
  await picture(tab, 'explorer')
  await first.hover()
  const held = await first.innerText()
  await tab.getByRole('button', { name: /new blocks?: show$/ }).waitFor()
  assert.equal(await first.innerText(), held)
  await tab.mouse.move(5, 5)
  await tab.waitForFunction((known) => document.querySelector('tbody th a')?.textContent !== known, held)

  // Nothing is asked for while nobody looks.
  const asked = []
  tab.on('request', (request) => asked.push(request.url()))
  await tab.evaluate(() => {
    Object.defineProperty(document, 'hidden', { get: () => true })
    document.dispatchEvent(new Event('visibilitychange', { bubbles: true }))
  })
  await tab.waitForTimeout(1500)
  asked.length = 0
  await tab.waitForTimeout(3000)
  assert.deepEqual(asked, [])
  for (const options of [{ colorScheme: 'dark' }, PHONE]) {
    const other = await open('', options)
    await other.getByText('Live', { exact: true }).waitFor()
    await isSound(other)
  }
})

test('a transaction is told by name, from its block, and found by its hash', async () => {
  const title = 'later <script>alert(1)</script>'
  const number = await ledger.govern(ledger.operator, 'proposeParameters', [[{ name: toHex('timelock_s', { size: 32 }), value: 120n }], title])
  const tab = await open(`#block-${number}`)
  await tab.getByRole('heading', { name: /^Block / }).waitFor()
  await tab.getByText(/^Block [\d,]+ is proven$/).waitFor()
  const row = tab.getByRole('row', { name: /governance · proposeParameters/ })
  await row.getByText('done').waitFor()
  await isSound(tab)
  const link = row.getByRole('link').first()
  const hash = await link.getAttribute('title')
  await link.click()
  await tab.getByRole('heading', { name: 'governance · proposeParameters' }).waitFor()
  // What somebody wrote is text.
  await tab.getByText(title, { exact: true }).first().waitFor()
  await tab.getByRole('heading', { name: /^governance · Proposed/ }).waitFor()
  await isSound(tab)
  await picture(tab, 'explorer-transaction')

  const other = await open('', PHONE)
  await search(other, hash)
  await other.getByRole('heading', { name: 'governance · proposeParameters' }).waitFor()
  await isSound(other)
})

test('search finds blocks and accounts, and says where it looked for what is nowhere', async () => {
  const tab = await open()
  await search(tab, '1')
  await tab.getByRole('heading', { name: 'Block 1', exact: true }).waitFor()
  await search(tab, ledger.stranger.address.toLowerCase())
  await tab.getByText(/Genesis gave it/).waitFor()
  await tab.getByText('a <b>stranger’s</b>').waitFor()
  await tab.getByText(/Nobody indexes them by account/).waitFor()
  await isSound(tab)
  const nowhere = '<img src=x onerror=alert(1)>'
  await search(tab, nowhere)
  await tab.getByRole('heading', { name: `Nothing is known by “${nowhere}”` }).waitFor()
  await tab.getByText('names of models, at this gateway and on the ledger').waitFor()
  await search(tab, '99999999999999999999')
  await tab.getByText(/Nothing is known by/).waitFor()
  await tab.goto(`${ledger.origin}/explorer#transaction-0x${'1'.repeat(64)}`)
  await tab.getByText(/No node that answers knows a transaction/).waitFor()
  await tab.goto(`${ledger.origin}/explorer#dispute-1`)
  await tab.getByText('The ledger knows no dispute 1.').waitFor()
})

test('a dispute is a story, down to the one number', async () => {
  const stories = readdirSync(STORIES).map((name) => JSON.parse(readFileSync(new URL(name, STORIES), 'utf8')))
  assert.ok(stories.length > 0)
  for (const story of stories) {
    const { dispute, leaf } = story
    const tell = (context) => context.route('**/v1/network/disputes/*', (route) => route.fulfill({ json: story }))
    for (const options of [{}, { colorScheme: 'dark' }, PHONE]) {
      const tab = await open(`#dispute-${dispute.id}`, options, tell)
      const steps = tab.locator('ol.steps > li')
      await steps.first().waitFor()
      assert.equal(await steps.count(), story.steps.length + 1, 'every move, and how it stands')
      const said = await tab.locator('main').innerText()
      if (dispute.is_open) assert.match(said, /Who is silent loses/)
      else if (dispute.is_convicted) assert.match(said, /The worker is convicted/)
      else assert.match(said, /That acquits nobody/)
      if (leaf) {
        for (const text of [leaf.claimed.bits, leaf.computed.bits, leaf.claimed.value, leaf.computed.value]) assert.ok(said.includes(text), text)
        assert.match(said, leaf.lied ? /They are not the same, to the bit/ : /They are the same, to the bit/)
        assert.equal((await tab.locator('.differs').count()) > 0, leaf.lied)
        await tab.getByRole('img', { name: /^In question: .* words, then .* 1 words?\.$/ }).waitFor()
      }
      await isSound(tab)
    }
  }
})
