/** The page for who has a key, and what an operator earned, in front of a network whose workers ask a price. */
import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, before, test } from 'node:test'
import { serious } from './axe.mjs'
import { openTab, picture, startBrowser } from './browser.mjs'
import { BINARY, startNetwork } from './network.mjs'

let network, browser, folder
const contexts = []

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'surety-keys-'))
  network = await startNetwork(['--workers', '2', '--validators', '1'], ['--data-dir', folder])
  browser = await startBrowser()
})

after(async () => {
  await browser?.close()
  await network?.stop()
  rmSync(folder, { recursive: true, force: true })
})

afterEach(async () => {
  for (const context of contexts.splice(0)) {
    for (const tab of context.pages()) assert.deepEqual([tab.problems ?? [], tab.strangers ?? []], [[], []], 'what the page complained of, and whom it asked')
    await context.close()
  }
})

const create = (name, ...terms) => /sk-surety-[0-9a-f]+/.exec(execFileSync(BINARY, ['--data-dir', folder, 'apikey', 'create', name, ...terms], { encoding: 'utf8' }))[0]

async function open(path, options = {}) {
  const { context, tab } = await openTab(browser, network.origin, options)
  contexts.push(context)
  await tab.goto(`${network.origin}${path}`)
  return tab
}

async function enter(tab, key, isKept = false) {
  await tab.getByLabel('Your key').fill(key)
  if (isKept) await tab.getByLabel('Keep it in this browser').check()
  await tab.getByRole('button', { name: 'Show its usage' }).click()
}

const chat = (key, more = {}) =>
  fetch(`${network.origin}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...(key && { authorization: `Bearer ${key}` }) },
    body: JSON.stringify({ model: 'shakespeare-demo', messages: [{ role: 'user', content: 'Speak of the sea.' }], max_tokens: 40, ...more }),
  })

const told = async (path, key) => (await fetch(`${network.origin}${path}`, { headers: key ? { authorization: `Bearer ${key}` } : {} })).json()

const figure = (tab, label) => tab.locator('dl > div', { has: tab.getByText(label, { exact: true }) }).locator('.value').first()

const inCredits = (micro) => String(Number(micro) / 1e6)

test('a gateway that asks for no key shows what everybody used', async () => {
  assert.equal((await chat()).status, 200)
  const tab = await open('/keys')
  await tab.getByText('This gateway asks for no key.').waitFor()
  await tab.getByRole('row', { name: /answered/ }).waitFor()
  assert.equal(await tab.getByLabel('Your key').count(), 0)
  assert.equal(await figure(tab, 'Left').innerText(), 'not bounded')
})

test('whoever has a key sees what is left of its budget, what it used, and what failed, as it happens', async () => {
  const key = create('mine', '--budget', '0.05', '--rpm', '100', '--models', 'shakespeare-demo', '--expires', '30d')
  const tab = await open('/keys')
  await tab.getByLabel('Your key').waitFor()
  await enter(tab, 'sk-surety-wrong')
  await tab.getByText('The key is not known here.').waitFor()
  await enter(tab, key)
  await tab.getByText('Nothing was asked yet.').waitFor()
  assert.equal(await figure(tab, 'Left').innerText(), '0.05 credits')

  for (const tokens of [20, 40, 60]) assert.equal((await chat(key, { max_tokens: tokens })).status, 200)
  assert.equal((await chat(key, { temperature: 9 })).status, 400)
  const credits = await told('/v1/credits', key)
  assert.ok(Number(credits.used) > 0, 'workers ask a price')
  await tab.getByText(`${inCredits(credits.left)} credits`, { exact: true }).first().waitFor()
  await figure(tab, 'Used').getByText(`${inCredits(credits.used)} credits`).waitFor()
  await tab.getByRole('button', { name: 'Failed (1)' }).waitFor()
  await tab.getByText('Correct the parameter that is named, and send the request again.').waitFor()
  assert.equal(await tab.getByRole('row', { name: /answered/ }).count(), 3)
  const usage = await told('/v1/usage', key)
  for (const [width, words] of [['An hour', 'In the last hour'], ['Thirty days', 'In the last thirty days'], ['Two days', 'In the last two days']]) {
    await tab.getByRole('button', { name: width }).click()
    await tab.getByText(`${words}, by the`).filter({ hasText: `3 answers, ${usage.total.prompt_tokens} tokens of prompts and ${usage.total.output_tokens} of answers, ${inCredits(credits.used)} credits` }).waitFor()
  }
  await tab.getByRole('button', { name: 'Cost', exact: true }).click()
  await tab.getByRole('img', { name: `Cost by the hour in the last two days, ${inCredits(credits.used)} credits in all` }).waitFor()

  const [download] = await Promise.all([tab.waitForEvent('download'), tab.getByRole('button', { name: 'CSV' }).click()])
  const lines = readFileSync(await download.path(), 'utf8').trim().split('\r\n').slice(1)
  assert.equal(lines.reduce((sum, line) => sum + Number(line.split(',')[8]), 0), Number(credits.used))
  assert.equal(lines.length, 3)
  const [json] = await Promise.all([tab.waitForEvent('download'), tab.getByRole('button', { name: 'JSON' }).click()])
  assert.deepEqual(JSON.parse(readFileSync(await json.path(), 'utf8')).total, usage.total)

  await tab.getByRole('button', { name: 'Failed (1)' }).click()
  await tab.getByRole('row', { name: /invalid_param/ }).first().getByRole('button').click()
  await tab.getByRole('dialog').getByText('It must lie between 0 and 2.').waitFor()
  const [explanation] = await Promise.all([tab.waitForEvent('download'), tab.getByRole('button', { name: 'Save its explanation' }).click()])
  assert.match(spawnSync(BINARY, ['explain', await explanation.path()], { encoding: 'utf8' }).stdout, /^THE CALLER: .*temperature/)
  await tab.getByRole('button', { name: 'Close' }).click()

  // It is in no address and in no storage, unless it is to be kept; then the chat has it, too, and so has the page that verifies.
  const kept = () => tab.evaluate(async () => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, location.href, await new Promise((resolve) => {
    const opened = indexedDB.open('surety')
    opened.onsuccess = () => (opened.result.transaction('settings').objectStore('settings').getAll().onsuccess = (event) => resolve(event.target.result))
  })]))
  assert.ok(!(await kept()).includes(key))
  await tab.reload()
  await enter(tab, key, true)
  await tab.getByText('It is kept in this browser').waitFor()
  assert.ok((await kept()).includes(key))
  await tab.getByRole('row', { name: /answered/ }).first().getByRole('button').click()
  await tab.getByRole('link', { name: 'Verify its receipt' }).click()
  await tab.getByText('shakespeare-demo').first().waitFor()
  await tab.goto(`${network.origin}/keys`)
  await tab.getByText('It is kept in this browser').waitFor()
  await tab.getByRole('button', { name: 'Forget it' }).click()
  await tab.getByLabel('Your key').waitFor()
  assert.ok(!(await kept()).includes(key))
})

test('a key that has expired is refused, also while it is looked at', async () => {
  const tab = await open('/keys')
  const key = create('brief', '--expires', '20s')
  await enter(tab, key)
  await tab.getByText('Nothing was asked yet.').waitFor()
  await tab.getByText(/The key `brief` expired at/).waitFor()
  await tab.getByLabel('Your key').waitFor()
})

test('it is quiet to assistive software, and fits a phone', async () => {
  const key = create('looks', '--budget', '0.02', '--rpm', '30', '--tpm', '100000')
  for (const tokens of [10, 30, 50, 70]) assert.equal((await chat(key, { max_tokens: tokens })).status, 200)
  await chat(key, { temperature: 9 })
  for (const [name, options] of [['light', {}], ['dark', { colorScheme: 'dark' }], ['phone', { viewport: { width: 375, height: 760 } }]]) {
    const tab = await open('/keys', options)
    await tab.getByLabel('Your key').waitFor()
    assert.deepEqual(await serious(tab), [], name)
    await enter(tab, key)
    await tab.getByRole('button', { name: 'An hour' }).click()
    await tab.getByText(/^In the last hour, by the minute/).waitFor()
    await tab.getByText('What failed, and what to do').waitFor()
    assert.deepEqual(await serious(tab), [], name)
    assert.ok((await tab.evaluate(() => document.documentElement.scrollWidth)) <= (options.viewport?.width ?? 1280), name)
    await picture(tab, `keys-${name}`)
  }
})

test('an operator’s page shows what the ledger says it was paid, and its epochs add up to what is proven', async () => {
  const key = create('earns', '--budget', '5')
  const operators = [...new Set((await told('/v1/network/live')).workers.flatMap((worker) => worker.operator ?? []))]
  assert.equal((await chat(key, { max_tokens: 80 })).status, 200)
  const earnings = (operator) => told(`/v1/network/operators/${operator}/earnings`)
  // Workers claim once a minute.
  let paid
  while (!paid) {
    const all = await Promise.all(operators.map(earnings))
    paid = all.find((one) => BigInt(one.settled) > 0n)
    if (!paid) await new Promise((resolve) => setTimeout(resolve, 500))
  }
  assert.ok(BigInt(paid.bonded) > 0n && BigInt(paid.claimed) >= BigInt(paid.settled))
  assert.equal(BigInt(paid.claimed) - BigInt(paid.settled), BigInt(paid.unpaid))
  assert.equal(paid.epochs[0].epoch, 0, 'this ledger is young')
  const sum = (field) => paid.epochs.reduce((sum, one) => sum + BigInt(one[field]), 0n)
  assert.equal(sum('settled'), BigInt(paid.settled), 'what events tell is what is proven')
  assert.equal(sum('received'), sum('settled') - sum('for_auditors') - sum('for_proposers') - sum('taken') + sum('audits') + sum('hosting') + sum('bonds'))

  const tab = await open(`/network#operator=${paid.operator}`)
  await tab.getByRole('heading', { name: 'Earnings' }).waitFor()
  await figure(tab, 'Bonded by itself').getByText(String(BigInt(paid.bonded) / 10n ** 18n)).waitFor()
  await tab.getByRole('img', { name: /^What reached the operator by epoch, .* since epoch 0/ }).waitFor()
  await tab.getByText('For its owner: what to do next').click()
  await tab.getByText('surety worker earnings').waitFor()
  assert.deepEqual(await serious(tab), [])
  await picture(tab, 'earnings')
  assert.equal((await fetch(`${network.origin}/v1/network/operators/0x${'9'.repeat(40)}/earnings`)).status, 404)
})
