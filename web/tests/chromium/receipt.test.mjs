/** Receipts, verified in the page: in the chat as answers end, and on the page for them; what is forged, edited or replayed turns red. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { after, before, test } from 'node:test'
import { openTab, picture, startBrowser, watch } from './browser.mjs'
import { startLine, startNetwork } from './network.mjs'

const AXE = readFileSync(new URL('../../node_modules/axe-core/axe.min.js', import.meta.url), 'utf8')
let network, line, browser

before(async () => {
  network = await startNetwork(['--workers', '2', '--validators', '0'])
  line = await startLine(network.origin)
  browser = await startBrowser()
})

after(async () => {
  await browser?.close()
  await line?.stop()
  await network?.stop()
})

async function answered(t, options = {}, origin = line.origin) {
  const { context, tab, chat } = await openTab(browser, origin, options)
  t.after(() => context.close())
  await chat.ready()
  await chat.wish({ 'Longest answer': 24 })
  await chat.askAndWait('Speak of the sea.')
  return { context, tab, chat }
}

const labelled = (chat, name) => chat.lastAnswer().getByRole('button', { name, exact: true }).waitFor()
const facts = (tab) => tab.getByRole('dialog', { name: 'What is known of this answer' })

async function serious(tab) {
  await tab.evaluate(AXE)
  const { violations } = await tab.evaluate(() => window.axe.run())
  return violations.filter(({ impact }) => impact === 'serious' || impact === 'critical').map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 160)).join(' | ')}`)
}

async function receiptOf() {
  const asked = { model: 'shakespeare-demo', messages: [{ role: 'user', content: 'Speak of the sea.' }], max_tokens: 24 }
  const response = await fetch(`${network.origin}/v1/chat/completions`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(asked) })
  const { choices, surety } = await response.json()
  const text = await (await fetch(`${network.origin}${surety.receipt}`)).text()
  return { id: surety.request_id, text, said: choices[0].message.content }
}

test('an answer’s receipt is checked as it ends; a second worker’s answer checks the model', async (t) => {
  const { tab, chat } = await answered(t)
  await labelled(chat, 'Receipt checked')
  await chat.chip().click()
  await facts(tab).getByText('they do not show that the model gave it').waitFor()
  await picture(tab, 'receipt-checked')
  await facts(tab).getByRole('button', { name: 'Re-run it' }).click()
  await facts(tab).getByRole('heading', { name: 'Model checked' }).waitFor()
  await facts(tab).getByText('computed it again for you, and gave the same text').waitFor()
  await picture(tab, 'model-checked')
  await tab.keyboard.press('Escape')
  await labelled(chat, 'Model checked')
  assert.deepEqual([tab.problems, tab.strangers], [[], []])
  // What was answered before the page was loaded is checked when somebody looks.
  await tab.reload()
  await labelled(chat, 'Not checked')
  await chat.chip().click()
  await facts(tab).getByRole('heading', { name: 'Receipt checked; the model was not' }).waitFor()
})

test('with one worker alone there is no second to ask', async (t) => {
  const alone = await startNetwork(['--workers', '1', '--validators', '0'])
  t.after(() => alone.stop())
  const { tab, chat } = await answered(t, {}, alone.origin)
  await labelled(chat, 'Receipt checked')
  await chat.chip().click()
  await facts(tab).getByRole('button', { name: 'Re-run it' }).click()
  await facts(tab).getByText('There is no second worker to ask').waitFor()
  await labelled(chat, 'Receipt checked')
})

test('a receipt that was forged, edited or is another’s turns red', async (t) => {
  const other = await receiptOf()
  const forgeries = {
    'The text is not the one that the worker signed': (text) => text.replace(/("output_ids":\[[^\]]*\],"resumed_ids":\[\],"text":")/, '$1x'),
    'somebody edited what people read': (text) => text.replace(/"model_name":"[^"]*"/, '"model_name":"a-better-model"'),
    'The worker’s signature does not hold': (text) => {
      const file = JSON.parse(text)
      const bytes = Buffer.from(file.answers[0].receipt, 'base64')
      bytes[bytes.length - 40] ^= 1
      file.answers[0].receipt = bytes.toString('base64')
      return JSON.stringify(file)
    },
    'This is the receipt of another request': () => other.text,
    'This is no receipt': () => '{"surety":1}',
  }
  const { tab, chat } = await answered(t)
  t.after(() => (line.state.forge = null))
  for (const [why, forge] of Object.entries(forgeries)) {
    line.state.forge = forge
    await chat.askAndWait('Speak of the sea.')
    await labelled(chat, 'Check failed — not charged')
    await chat.chip().click()
    await facts(tab).getByText(why).first().waitFor()
    await facts(tab).getByText('Do not rely on this answer').waitFor()
    if (why.startsWith('The text')) await picture(tab, 'check-failed')
    await tab.keyboard.press('Escape')
  }
  assert.deepEqual(await serious(tab), [])
  line.state.forge = null
  await chat.askAndWait('Speak of the sea.')
  await labelled(chat, 'Receipt checked')
})

test('the page for receipts verifies one, by id and as a file, and without a connection', async (t) => {
  const { id, text, said } = await receiptOf()
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 } })
  t.after(() => context.close())
  const tab = await watch(await context.newPage())
  await tab.goto(`${line.origin}/verify#${id}`)
  const outcome = (kind) => tab.locator(`article[data-outcome="${kind}"]`)
  await outcome('holds').waitFor()
  await tab.getByLabel('Paste the text you saw').fill(said)
  await tab.getByText(/^The same/).first().waitFor()
  await tab.getByLabel('Paste the text you saw').fill(`${said} and more`)
  await tab.getByText('Not the signed text').waitFor()
  await picture(tab, 'verify')
  assert.deepEqual(await serious(tab), [])

  await tab.evaluate(() => navigator.serviceWorker.ready)
  await tab.waitForFunction(async () => (await caches.keys()).length > 0)
  line.cut()
  t.after(() => line.mend())
  await tab.goto(`${line.origin}/verify`)
  const give = (name, content) => tab.locator('input[type=file]').setInputFiles({ name, mimeType: 'application/json', buffer: Buffer.from(content) })
  await give('receipt.json', text)
  await outcome('holds').waitFor()
  await tab.getByText('What it does not prove').waitFor()
  await give('edited.json', text.replace(/"charge":"\d+"/, '"charge":"7"'))
  await outcome('refused').waitFor()
  await tab.getByText('somebody edited what people read').waitFor()
  await picture(tab, 'verify-refused')
  await give('nothing.json', 'hello')
  await outcome('unreadable').waitFor()
  // Far too much is told so, at once.
  await tab.evaluate(() => {
    const data = new DataTransfer()
    data.setData('text/plain', 'x'.repeat(100_000_000))
    document.body.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data, bubbles: true, cancelable: true }))
  })
  await tab.getByText('That is 100 MB').waitFor()
  await tab.locator('#id').fill(id)
  await tab.getByRole('button', { name: 'Get it' }).click()
  await tab.getByText('can be verified here without it').waitFor()
  assert.deepEqual(tab.strangers, [])
})

test('the page for receipts fits a phone, in the dark too', async (t) => {
  const { text } = await receiptOf()
  for (const colorScheme of ['light', 'dark']) {
    const context = await browser.newContext({ viewport: { width: 375, height: 740 }, colorScheme })
    t.after(() => context.close())
    const tab = await watch(await context.newPage())
    await tab.goto(`${line.origin}/verify`)
    await picture(tab, `verify-phone-empty-${colorScheme}`)
    await tab.locator('input[type=file]').setInputFiles({ name: 'receipt.json', mimeType: 'application/json', buffer: Buffer.from(text) })
    await tab.locator('article[data-outcome="holds"]').waitFor()
    assert.ok(await tab.evaluate(() => document.documentElement.scrollWidth <= 375))
    await picture(tab, `verify-phone-${colorScheme}`)
    assert.deepEqual(await serious(tab), [])
    assert.deepEqual(tab.problems, [])
  }
})
