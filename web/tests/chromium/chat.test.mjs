/** The chat page in Chromium, in front of a network that really answers. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { after, afterEach, before, test } from 'node:test'
import { serious } from './axe.mjs'
import { openTab, picture, startBrowser, watch } from './browser.mjs'
import { startLine, startNetwork } from './network.mjs'

let network, line, browser
const contexts = []

before(async () => {
  network = await startNetwork()
  line = await startLine(network.origin)
  browser = await startBrowser()
})

after(async () => {
  await browser?.close()
  await line?.stop()
  await network?.stop()
})

/** A fresh profile; at the end of the test, nothing must have been complained of, nor anybody else been asked. */
async function open(options = {}, origin = line.origin) {
  const opened = await openTab(browser, origin, options)
  contexts.push(opened.context)
  await opened.chat.ready()
  return opened
}

afterEach(async () => {
  line.mend()
  Object.assign(line.state, { isSilent: false, isEndless: false, pauseMs: 0, bytesBeforeCut: Infinity })
  for (const context of contexts.splice(0)) {
    for (const tab of context.pages()) {
      assert.deepEqual(tab.problems ?? [], [], 'what the page complained of')
      assert.deepEqual(tab.strangers ?? [], [], 'whom the page asked beside its gateway')
    }
    await context.close()
  }
})

test('first chat: an answer comes, is kept, and says what is known of it', async () => {
  const { tab, chat } = await open()
  await tab.getByText('is a demonstration').waitFor()
  await chat.wish({ 'Longest answer': 40, Seed: 7 })
  await chat.askAndWait('Speak of the sea.')
  const text = await chat.text()
  assert.ok(text.length > 0)
  await chat.chip().click()
  const facts = tab.getByRole('dialog', { name: 'What is known of this answer' })
  await facts.getByRole('heading', { name: 'Receipt checked; the model was not' }).waitFor()
  const said = await facts.innerText()
  for (const part of ['Which model', 'shakespeare-demo', 'Who ran it', 'Who could read it', 'Nobody has computed the answer again', 'they can still be wrong', 'If a check fails', 'Cost', 'surety verify req_']) {
    assert.ok(said.includes(part), `${part} is not in: ${said}`)
  }
  assert.ok(!/^model checked/im.test(said), said)
  const downloading = tab.waitForEvent('download')
  await facts.getByRole('button', { name: 'Receipt', exact: true }).click()
  const receipt = JSON.parse(readFileSync(await (await downloading).path(), 'utf8'))
  assert.equal(receipt.answers[0].text.trim(), text)
  await tab.keyboard.press('Escape')
  await tab.reload()
  await chat.until('whole')
  assert.equal(await chat.text(), text)
  await tab.getByRole('link', { name: 'Speak of the sea.' }).waitFor()
})

test('a stopped answer stays as far as it came', async () => {
  const { tab, chat } = await open()
  Object.assign(line.state, { isEndless: true, pauseMs: 20 })
  await chat.wish({ 'Longest answer': 900 })
  await chat.ask('Speak at length, and do not end.')
  await chat.untilLength(30)
  await tab.keyboard.press('Escape')
  await chat.until('stopped')
  const text = await chat.text()
  await tab.reload()
  await chat.lastAnswer().locator('.markdown').waitFor()
  assert.equal(await chat.text(), text)
  assert.ok(await chat.composer().isEnabled())
})

test('editing and answering again make branches, and one can go back', async () => {
  const { tab, chat } = await open()
  await chat.wish({ 'Longest answer': 16, Seed: 1 })
  await chat.askAndWait('Who goes there?')
  await chat.askAndWait('And who else?')
  // ↑ in the empty composer edits the last message.
  await chat.composer().press('ArrowUp')
  const edit = tab.getByRole('textbox', { name: 'Edit your message' })
  assert.equal(await edit.inputValue(), 'And who else?')
  await edit.fill('Nobody else?')
  await edit.press('Enter')
  await tab.locator('article.yours', { hasText: 'Nobody else?' }).waitFor()
  await chat.until('whole')
  assert.equal(await chat.questions().count(), 2)
  const question = chat.questions().last()
  await question.hover()
  await question.getByRole('button', { name: 'Previous version' }).click()
  await tab.locator('article.yours', { hasText: 'And who else?' }).waitFor()
  await chat.lastAnswer().getByRole('button', { name: 'Answer again' }).click()
  await chat.lastAnswer().getByRole('group', { name: 'Version 2 of 2' }).waitFor()
  await chat.until('whole')
  await tab.reload()
  await chat.lastAnswer().getByRole('group', { name: 'Version 2 of 2' }).waitFor()
  await chat.questions().last().hover()
  await chat.questions().last().getByRole('button', { name: 'Next version' }).click()
  await tab.locator('article.yours', { hasText: 'Nobody else?' }).waitFor()
})

test('a page that is reloaded in mid-answer goes on with the same answer', async () => {
  const { tab, chat } = await open()
  line.state.isEndless = true
  // The uninterrupted answer, by its seed.
  await chat.wish({ 'Longest answer': 300, Seed: 11, Temperature: 1 })
  await chat.askAndWait('Tell of the wars.')
  const whole = await chat.text()
  assert.ok(whole.length > 40, whole)
  // Once the gateway is still answering, and once it has ended by then: the rest is in the receipt.
  for (const pauseMs of [10, 60]) {
    line.state.pauseMs = pauseMs
    if (pauseMs === 10) line.state.bytesBeforeCut = 40_000
    await chat.button('New chat').click()
    await chat.wish({ 'Longest answer': 300, Seed: 11, Temperature: 1 })
    const before = line.state.chats
    await chat.ask('Tell of the wars.')
    await chat.untilLength(60)
    if (pauseMs === 60) await tab.waitForTimeout(1500)
    assert.ok((await chat.text()).length < whole.length)
    await tab.reload()
    line.state.pauseMs = 0
    await chat.until('whole')
    assert.equal(await chat.text(), whole)
    assert.ok(line.state.chats > before + 1, 'it was asked for again')
  }
})

test('a line that breaks is mended without a word lost', async () => {
  const { tab, chat } = await open()
  line.state.isEndless = true
  await chat.wish({ 'Longest answer': 300, Seed: 12, Temperature: 1 })
  await chat.askAndWait('Tell of the kings.')
  const whole = await chat.text()
  line.state.bytesBeforeCut = 3000
  await chat.lastAnswer().getByRole('button', { name: 'Answer again' }).click()
  await chat.lastAnswer().getByRole('group', { name: 'Version 2 of 2' }).waitFor()
  await chat.until('whole')
  await tab.waitForFunction(() => !document.querySelector('article[data-state="answering"]'))
  assert.equal(await chat.text(), whole)
})

test('a gateway that cannot be reached is said, and waited for', async () => {
  const { tab, chat } = await open()
  await chat.wish({ 'Longest answer': 12 })
  line.cut()
  await chat.ask('Are you there?')
  await chat.lastAnswer().getByText('The gateway cannot be reached. Trying again').waitFor()
  await tab.getByText('Your chats are here').waitFor({ timeout: 60_000 })
  await picture(tab, 'unreachable')
  line.mend()
  await chat.until('whole')
  await tab.getByText('Your chats are here').waitFor({ state: 'detached' })
})

test('a gateway that is killed in mid-answer begins anew, and gives the rest of the same answer', async () => {
  const { tab, chat } = await open()
  line.state.isEndless = true
  await chat.wish({ 'Longest answer': 600, Seed: 21, Temperature: 1 })
  await chat.askAndWait('Tell of the storms.')
  const whole = await chat.text()
  line.state.pauseMs = 10
  await chat.lastAnswer().getByRole('button', { name: 'Answer again' }).click()
  await chat.until('answering')
  await chat.untilLength(30)
  // What it had sent by then is lost with it.
  process.kill(network.gateway.pid, 'SIGKILL')
  line.cut()
  await chat.lastAnswer().getByText('The gateway cannot be reached. Trying again').waitFor()
  assert.ok((await chat.text()).length < whole.length)
  line.state.pauseMs = 0
  line.mend()
  await chat.until('whole')
  assert.equal(await chat.text(), whole)
  await chat.lastAnswer().getByRole('group', { name: 'Version 2 of 2' }).waitFor()
  await chat.chip().click()
  await tab.getByRole('heading', { name: 'Receipt checked; the model was not' }).waitFor()
})

test('a clock that is wrong, and is set while one waits, loses nothing', async () => {
  const { tab, chat } = await open()
  await tab.clock.setSystemTime(new Date('2061-07-28T00:00:00Z'))
  await chat.wish({ 'Longest answer': 12, Seed: 5 })
  await chat.askAndWait('What is the hour?')
  await chat.lastAnswer().getByRole('button', { name: 'Receipt checked' }).waitFor()
  // It is set right, a day on and far back, while the gateway cannot be reached: that is no reason to give up, nor to wait for ever.
  line.cut()
  await chat.lastAnswer().getByRole('button', { name: 'Answer again' }).click()
  await chat.lastAnswer().getByText('The gateway cannot be reached. Trying again').waitFor()
  await tab.clock.setSystemTime(new Date('2061-07-30T00:00:00Z'))
  await tab.waitForFunction(() => new Date().getUTCDate() === 30)
  await tab.clock.setSystemTime(new Date('2001-01-01T00:00:00Z'))
  line.mend()
  await chat.until('whole')
  await chat.lastAnswer().getByRole('group', { name: 'Version 2 of 2' }).waitFor()
  await chat.chip().click()
  const facts = tab.getByRole('dialog', { name: 'What is known of this answer' })
  await facts.getByRole('heading', { name: 'Receipt checked; the model was not' }).waitFor()
  assert.doesNotMatch(await facts.innerText(), /in -|NaN|Invalid/)
  await tab.keyboard.press('Escape')
  await tab.reload()
  // What was said last is last, though the clock says otherwise.
  await chat.lastAnswer().getByRole('group', { name: 'Version 2 of 2' }).waitFor()
  await tab.getByRole('link', { name: 'What is the hour?' }).waitFor()
})

test('an answer that never starts is said, and can be stopped', async () => {
  const { tab, chat } = await open()
  line.state.isSilent = true
  await chat.ask('Hello?')
  await chat.lastAnswer().getByText('Still waiting for the first word').waitFor()
  await chat.button('Stop').click()
  await chat.until('stopped')
  assert.ok(await tab.getByText('You stopped this answer').isVisible())
})

test('by the keyboard alone', async () => {
  const { tab, chat } = await open()
  await chat.wish({ 'Longest answer': 12 })
  await tab.waitForFunction(() => document.activeElement?.closest('dialog') === null)
  await chat.composer().focus()
  await tab.keyboard.type('First line')
  await tab.keyboard.press('Shift+Enter')
  await tab.keyboard.type('second line')
  await tab.keyboard.press('Enter')
  await chat.until('whole')
  assert.equal(await chat.questions().first().locator('.bubble').innerText(), 'First line\nsecond line')
  assert.equal(await tab.evaluate(() => document.activeElement?.id), 'composer', 'the focus is where one goes on')
  // Search, by its words, and back to another chat.
  await tab.keyboard.press('Control+Shift+O')
  await tab.getByText('What would you like to ask?').waitFor()
  await tab.keyboard.press('Control+K')
  await tab.getByRole('combobox', { name: 'Search chats' }).waitFor()
  await tab.keyboard.type('second line')
  await tab.getByRole('option', { selected: true }).waitFor()
  await tab.keyboard.press('Enter')
  await tab.locator('article.yours', { hasText: 'First line' }).waitFor()
  // The chip opens, tells, and gives the focus back.
  await chat.chip().focus()
  await tab.keyboard.press('Enter')
  await tab.getByRole('dialog', { name: 'What is known of this answer' }).waitFor()
  await tab.keyboard.press('Escape')
  assert.match(await tab.evaluate(() => document.activeElement?.textContent ?? ''), /^Receipt checked$|^Not checked$|^Checking…$/)
})

test('an input method’s Enter sends nothing', async () => {
  const { tab, chat } = await open()
  await chat.wish({ 'Longest answer': 8 })
  await chat.composer().focus()
  const input = await tab.context().newCDPSession(tab)
  await input.send('Input.imeSetComposition', { text: 'にほん', selectionStart: 3, selectionEnd: 3 })
  await tab.keyboard.press('Enter')
  await tab.waitForTimeout(200)
  assert.equal(await chat.questions().count(), 0)
  await input.send('Input.insertText', { text: '日本' })
  await tab.keyboard.press('Enter')
  await chat.until('whole')
  assert.equal(await chat.questions().first().locator('.bubble').innerText(), '日本')
})

test('on a phone nothing is cut off, and the chats are a drawer', async () => {
  const { tab, chat } = await open({ viewport: { width: 375, height: 740 }, hasTouch: true, isMobile: true })
  await picture(tab, 'phone-welcome')
  assert.deepEqual(await serious(tab), [])
  await chat.wish({ 'Longest answer': 40 })
  await chat.askAndWait('Speak of the sea.')
  assert.ok(await tab.evaluate(() => document.documentElement.scrollWidth <= 375 && document.querySelector('.conversation').scrollWidth <= 375))
  await chat.chip().click()
  const box = await tab.getByRole('dialog', { name: 'What is known of this answer' }).boundingBox()
  assert.ok(box.x >= 0 && box.x + box.width <= 375, JSON.stringify(box))
  await tab.keyboard.press('Escape')
  await chat.button('Show chats').click()
  await tab.getByRole('link', { name: 'Speak of the sea.' }).waitFor()
  await picture(tab, 'phone-chats')
  await tab.getByRole('link', { name: 'Speak of the sea.' }).click()
  await tab.getByRole('navigation', { name: 'Chats' }).waitFor({ state: 'detached' })
})

test('light and dark, as the system has it or as is chosen; nothing serious for axe', async () => {
  for (const colorScheme of ['light', 'dark']) {
    const { tab, chat } = await open({ colorScheme })
    await picture(tab, `${colorScheme}-welcome`)
    assert.deepEqual(await serious(tab), [], `${colorScheme}, welcome`)
    await chat.wish({ 'Longest answer': 60, Seed: 3 })
    await chat.askAndWait('Speak of the sea.')
    await chat.chip().click()
    await picture(tab, `${colorScheme}-check`)
    assert.deepEqual(await serious(tab), [], `${colorScheme}, an answer`)
    await tab.keyboard.press('Escape')
    await chat.button('Settings').click()
    await tab.getByRole('heading', { name: 'Appearance' }).waitFor()
    await picture(tab, `${colorScheme}-settings`)
    assert.deepEqual(await serious(tab), [], `${colorScheme}, settings`)
    const paper = () => tab.evaluate(() => getComputedStyle(document.body).backgroundColor)
    const first = await paper()
    await tab.getByText(colorScheme === 'light' ? 'Dark' : 'Light', { exact: true }).click()
    assert.notEqual(await paper(), first)
    const other = await paper()
    await tab.reload()
    assert.equal(await paper(), other, 'the choice is kept')
  }
})

test('two tabs see each other, and lose nothing of one another', async () => {
  const { context, tab, chat } = await open()
  await chat.wish({ 'Longest answer': 24 })
  await chat.askAndWait('First of all')
  const second = await watch(await context.newPage())
  await second.goto(tab.url())
  const { ChatPage } = await import('./browser.mjs')
  const other = new ChatPage(second)
  await other.until('whole')
  // Both go on from the same answer before they hear of one another: two branches.
  for (const one of [tab, second]) await one.evaluate(() => (BroadcastChannel.prototype.postMessage = () => undefined))
  await Promise.all([chat.ask('From the first tab'), other.ask('From the second tab')])
  await Promise.all([chat.questions().nth(1).waitFor(), other.questions().nth(1).waitFor()])
  await Promise.all([
    tab.waitForFunction(() => !document.querySelector('article[data-state="answering"]')),
    second.waitForFunction(() => !document.querySelector('article[data-state="answering"]')),
  ])
  await tab.reload()
  await chat.questions().nth(1).waitFor()
  await chat.questions().nth(1).getByRole('group', { name: /of 2/ }).waitFor({ state: 'attached' })
  const kept = await tab.evaluate(() => new Promise((resolve) => {
    const opened = indexedDB.open('surety')
    opened.onsuccess = () => {
      const all = opened.result.transaction('messages').objectStore('messages').getAll()
      all.onsuccess = () => resolve(all.result.map(({ text, role, state }) => [role, state, role === 'user' ? text : '']))
    }
  }))
  const asked = kept.filter(([role]) => role === 'user').map(([, , text]) => text).sort()
  assert.deepEqual(asked, ['First of all', 'From the first tab', 'From the second tab'])
  assert.ok(kept.every(([, state]) => state === 'whole'))
  // What one renames, the other shows. The first speaks again, since it was loaded anew.
  await tab.getByRole('listitem').filter({ hasText: 'First of all' }).hover()
  await tab.getByRole('button', { name: 'More about First of all' }).click()
  await tab.getByRole('button', { name: 'Rename' }).click()
  await tab.getByRole('textbox', { name: 'Name of the chat' }).fill('Of two tabs')
  await tab.keyboard.press('Enter')
  await second.getByRole('link', { name: 'Of two tabs' }).waitFor()
})

test('an answer goes on in another tab when its own is closed', async () => {
  const { context, tab, chat } = await open()
  Object.assign(line.state, { isEndless: true, pauseMs: 20 })
  await chat.wish({ 'Longest answer': 300, Temperature: 1, Seed: 12 })
  await chat.ask('Tell of the kings.')
  await chat.untilLength(20)
  const second = await watch(await context.newPage())
  await second.goto(tab.url())
  await second.locator('article[data-state="answering"]').waitFor()
  await tab.close()
  line.state.pauseMs = 0
  await second.locator('article[data-state="whole"]:not(.yours)').waitFor()
})

test('chats are exported, deleted with a question, and all erased with one', async () => {
  const { tab, chat } = await open()
  await chat.wish({ 'Longest answer': 8 })
  for (const text of ['One', 'Two', 'Three']) {
    await chat.button('New chat').click()
    await chat.askAndWait(text)
  }
  const more = async (name) => {
    await tab.getByRole('listitem').filter({ hasText: name }).hover()
    await tab.getByRole('button', { name: `More about ${name}` }).click()
  }
  await more('Two')
  const downloading = tab.waitForEvent('download')
  await tab.getByRole('button', { name: 'Export as JSON' }).click()
  const exported = JSON.parse(readFileSync(await (await downloading).path(), 'utf8'))
  assert.deepEqual([exported.title, exported.messages.length], ['Two', 2])
  await more('Two')
  await tab.getByRole('button', { name: 'Delete', exact: true }).click()
  await tab.getByRole('dialog').getByRole('button', { name: 'Delete', exact: true }).click()
  await tab.getByRole('link', { name: 'Two', exact: true }).waitFor({ state: 'detached' })
  await chat.button('Settings').click()
  await chat.button('Erase everything…').click()
  await chat.button('Erase everything').click()
  await tab.getByText('What would you like to ask?').waitFor()
  await tab.reload()
  await chat.ready()
  assert.equal(await tab.getByRole('navigation').getByRole('listitem').count(), 0)
  const left = await tab.evaluate(async () => {
    const names = (await indexedDB.databases()).map(({ name }) => name)
    const rows = await new Promise((resolve) => {
      const opened = indexedDB.open('surety')
      opened.onsuccess = () => {
        const counts = opened.result.transaction(['chats', 'messages'])
        const [chats, messages] = [counts.objectStore('chats').count(), counts.objectStore('messages').count()]
        counts.oncomplete = () => resolve(chats.result + messages.result)
      }
    })
    return { names, rows, local: localStorage.length }
  })
  assert.deepEqual(left, { names: ['surety'], rows: 0, local: 0 })
})

test('a temporary chat is kept nowhere', async () => {
  const { tab, chat } = await open()
  await chat.wish({ 'Longest answer': 8 })
  await chat.button('Temporary chat').click()
  await tab.getByRole('heading', { name: 'A temporary chat' }).waitFor()
  await chat.askAndWait('A secret')
  assert.equal(await tab.getByRole('navigation').getByText('A secret').count(), 0)
  await tab.reload()
  await tab.getByText('What would you like to ask?').waitFor()
  const kept = await tab.evaluate(() => new Promise((resolve) => {
    const opened = indexedDB.open('surety')
    opened.onsuccess = () => (opened.result.transaction('messages').objectStore('messages').count().onsuccess = (event) => resolve(event.target.result))
  }))
  assert.equal(kept, 0)
})

test('a storage that is full is said, and the chat goes on', async () => {
  const { tab, chat } = await open()
  await chat.wish({ 'Longest answer': 8 })
  await tab.evaluate(() => {
    const put = IDBObjectStore.prototype.put
    window.empty = () => (IDBObjectStore.prototype.put = put)
    IDBObjectStore.prototype.put = () => {
      throw new DOMException('full', 'QuotaExceededError')
    }
  })
  await chat.askAndWait('Is there room?')
  await tab.getByRole('alert').getByText('storage is full').waitFor()
  const text = await chat.text()
  assert.ok(text.length > 0)
  // With room again, all of it is kept.
  await tab.evaluate(() => window.empty())
  await chat.askAndWait('And now?')
  await tab.getByText('storage is full').waitFor({ state: 'detached' })
  await tab.reload()
  await chat.answers().nth(1).waitFor()
  assert.equal(await chat.text(chat.answers().first()), text)
})

test('a paste of 100 MB is refused, and a long one becomes a file', async () => {
  const { tab, chat } = await open()
  await chat.composer().focus()
  const paste = (length) => tab.evaluate((count) => {
    const clipboardData = new DataTransfer()
    clipboardData.setData('text/plain', 'x'.repeat(count))
    document.activeElement.dispatchEvent(new ClipboardEvent('paste', { clipboardData, bubbles: true, cancelable: true }))
  }, length)
  await chat.composer().fill('Mine stays.')
  await paste(100_000_000)
  await tab.getByRole('alert').getByText('100 MB').waitFor()
  assert.equal(await chat.composer().inputValue(), 'Mine stays.')
  await paste(8000)
  await tab.getByText('pasted.txt').waitFor()
  await chat.button('Remove pasted.txt').click()
  await tab.locator('input[type=file]').setInputFiles({ name: 'notes.txt', mimeType: 'text/plain', buffer: Buffer.from('To be, or not') })
  await chat.wish({ 'Longest answer': 8 })
  await chat.composer().press('Enter')
  await chat.until('whole')
  await chat.questions().first().getByText('notes.txt').waitFor()
})

test('once loaded, the page comes without its gateway', async () => {
  const { tab, chat } = await open()
  await chat.wish({ 'Longest answer': 8 })
  await chat.askAndWait('Hello')
  await tab.evaluate(() => navigator.serviceWorker.ready)
  line.cut()
  await tab.reload()
  await chat.questions().first().waitFor()
  await tab.getByText('The gateway cannot be reached.').waitFor()
  await tab.getByRole('link', { name: 'Hello' }).waitFor()
})
