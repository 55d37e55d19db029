/** Receipts, verified in the page: in the chat as answers end, and on the page for them; what is forged, edited or replayed turns red. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { serious } from './axe.mjs'
import { openTab, picture, startBrowser, watch } from './browser.mjs'
import { startLine, startNetwork } from './network.mjs'

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

test('the page answers while it verifies tens of megabytes, and can be stopped', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'surety-receipt-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const large = join(folder, 'large.json')
  writeFileSync(large, `{"surety":1,"answers":[${'0,'.repeat(30_000_000)}0]}`)
  const { text } = await receiptOf()
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 } })
  t.after(() => context.close())
  const tab = await watch(await context.newPage())
  await tab.goto(`${line.origin}/verify`)
  const outcome = tab.locator('article[data-outcome]')
  await tab.evaluate(() => {
    window.longest = 0
    new PerformanceObserver((list) => list.getEntries().forEach(({ duration }) => (window.longest = Math.max(window.longest, duration)))).observe({ type: 'longtask' })
    // What the page did between the moment it was given the file and the verdict.
    window.did = []
    const note = (what) => window.did.at(-1) === what || window.did.push(what)
    const frame = () => {
      if (document.querySelector('.working')) note('frame'), (window.frames_ = (window.frames_ ?? 0) + 1)
      requestAnimationFrame(frame)
    }
    frame()
    document.getElementById('id').addEventListener('input', () => document.querySelector('.working') && note('typed'))
    new MutationObserver(() => document.querySelector('article[data-outcome]') && note('verdict')).observe(document.body, { subtree: true, childList: true })
  })
  const choose = () => tab.locator('input[type=file]').setInputFiles(large)
  await choose()
  await tab.getByText('Verifying large.json…').waitFor()
  await tab.locator('#id').pressSequentially('a')
  await outcome.waitFor({ timeout: 180_000 })
  const { did, frames, longest } = await tab.evaluate(() => ({ did: window.did, frames: window.frames_, longest: window.longest }))
  t.diagnostic(`60 MB: ${frames} frames while they were verified, the longest task of the page's own thread ${Math.round(longest)} ms`)
  assert.ok(did.includes('typed') && did.indexOf('typed') < did.indexOf('verdict'), did.join())

  // Stopped, nothing comes of it; and the next one is verified.
  await tab.locator('#id').fill('')
  await choose()
  await tab.getByRole('button', { name: 'Stop' }).click()
  await tab.getByText('Verifying').waitFor({ state: 'detached' })
  assert.equal(await outcome.count(), 0)
  assert.equal(await tab.evaluate(() => document.activeElement?.id), 'id')
  await tab.locator('input[type=file]').setInputFiles({ name: 'receipt.json', mimeType: 'application/json', buffer: Buffer.from(text) })
  await tab.locator('article[data-outcome="holds"]').waitFor()
  assert.deepEqual([tab.problems, tab.strangers], [[], []])
})

test('a receipt is in its operator’s log where a path leads from it to the root', async (t) => {
  // A ledger's epochs are long: this one is told of by the line, the receipt is real.
  const sha256 = (...parts) => createHash('sha256').update(Buffer.concat(parts)).digest()
  const other = sha256(Buffer.from('another receipt'))
  const told = (lie) => async (id) => {
    const { view } = await (await fetch(`${network.origin}/v1/receipts/${id}`)).json()
    const { receipt, worker } = view.envelope.parts[0]
    const leaf = sha256(Buffer.of(0), Buffer.from(lie === 'another' ? 'ff'.repeat(32) : receipt, 'hex'))
    const inclusion = { state: 'included', epoch: 5, index: 1, size: 2, root: sha256(Buffer.of(1), other, leaf).toString('hex'), path: [other.toString('hex')] }
    const part = { worker, receipt, operator: null, drawn: false, audit: null, auditor: null, confirmed: false, contested: false, convicted: false, dispute_state: null, refunded: null, said: [] }
    return { parts: [{ ...part, inclusion: lie === 'nowhere' ? { state: 'not_shown', epoch: null, index: null, size: null, root: null, path: [] } : inclusion }] }
  }
  t.after(() => (line.state.tell = null))
  for (const [lie, words] of [
    [null, 'It is entry 2 of 2 in its operator’s log of epoch 5, from which audits are drawn: this page followed the path to the root that the gateway read from the ledger.'],
    ['another', 'the path that it gives does not lead there'],
    ['nowhere', 'Its worker does not show it in its operator’s log'],
  ]) {
    line.state.tell = told(lie)
    const { tab, chat } = await answered(t)
    await labelled(chat, 'Receipt checked')
    await chat.chip().click()
    await facts(tab).getByText(words).waitFor()
    assert.deepEqual([tab.problems, tab.strangers], [[], []])
  }
})

test('what stands in a receipt is text', async (t) => {
  const hostile = '<img src=x onerror="window.ran=1"><script>window.ran=2</script>'
  const asked = { model: 'shakespeare-demo', messages: [{ role: 'user', content: hostile }], max_tokens: 4 }
  const response = await fetch(`${network.origin}/v1/chat/completions`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(asked) })
  const { surety } = await response.json()
  const receipt = await (await fetch(`${network.origin}${surety.receipt}`)).text()
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 } })
  t.after(() => context.close())
  const tab = await watch(await context.newPage())
  await tab.goto(`${line.origin}/verify`)
  const give = (content) => tab.locator('input[type=file]').setInputFiles({ name: `${hostile.replaceAll('/', '')}.json`, mimeType: 'application/json', buffer: Buffer.from(content) })
  await give(receipt)
  await tab.locator('article[data-outcome="holds"]').waitFor()
  await tab.getByText('The prompt that was ordered').click()
  await tab.locator('pre', { hasText: '<img src=x onerror="window.ran=1"><script>' }).waitFor()
  // An error that is given in a receipt's place tells its message.
  await give(JSON.stringify({ error: { message: hostile } }))
  await tab.locator('article[data-outcome="unreadable"]', { hasText: 'onerror="window.ran=1"' }).waitFor()
  assert.equal(await tab.locator('main img, main script').count(), 0)
  assert.deepEqual([await tab.evaluate(() => window.ran), tab.problems, tab.strangers], [undefined, [], []])
})

test('who reads the page alone can answer five questions', async (t) => {
  const { tab, chat } = await answered(t)
  await labelled(chat, 'Receipt checked')
  await chat.chip().click()
  // Each beside its question.
  const says = async (question, answer) => {
    const term = facts(tab).locator('dt', { hasText: question })
    await term.waitFor()
    const said = (await term.locator('xpath=following-sibling::dd[1]').innerText()).replace(/\s+/g, ' ').trim()
    assert.match(said, answer, question)
  }
  await says('Which model', /^shakespeare-demo, by its immutable id [0-9a-f]{6}…[0-9a-f]{4}\.$/)
  await says('Who ran it', /^Worker [0-9a-f]{6}…[0-9a-f]{4}\.$/)
  await says('Who could read it', /^The gateway and that worker\. If another worker was asked and gave nothing, that one, too\.$/)
  await says('How it was checked, and how sure that is', /Signatures show who answers for this text; they do not show that the model gave it\./)
  await says('What this does not mean', /^That the answer is true\. “Model checked”, in green, means that somebody else computed the same words with this model; they can still be wrong\.$/)
  await says('If a check fails', /^The chip turns red and says so: do not rely on the answer then\. If the gateway’s own check fails, the answer breaks off and nothing is charged\. There is no ledger here, so no stake pays for a lie\.$/)
  await facts(tab).getByRole('button', { name: 'Re-run it' }).click()
  await facts(tab).getByRole('heading', { name: 'Model checked' }).waitFor()
  await says('Who could read it', /^The gateway and the 2 workers that are named here\./)
  await says('How it was checked, and how sure that is', /^Worker [0-9a-f]{6}…[0-9a-f]{4} computed it again for you, and gave the same text\./)
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
