/** A gateway that asks for a key. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { openTab, startBrowser } from './browser.mjs'
import { BINARY, startNetwork } from './network.mjs'

let network, browser, folder

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'surety-key-'))
  network = await startNetwork(['--workers', '1', '--validators', '0'], ['--data-dir', folder])
  browser = await startBrowser()
})

after(async () => {
  await browser?.close()
  await network?.stop()
  rmSync(folder, { recursive: true, force: true })
})

test('the page says that a key is asked for, takes it, and keeps it only if told to', async () => {
  const secret = /sk-surety-[0-9a-zA-Z_-]+/.exec(execFileSync(BINARY, ['--data-dir', folder, 'apikey', 'create', 'mine'], { encoding: 'utf8' }))[0]
  const { context, tab, chat } = await openTab(browser, network.origin)
  const enter = async (key, isKept) => {
    await tab.getByRole('button', { name: 'Enter it' }).click()
    await tab.getByLabel('API key').fill(key)
    if (isKept) await tab.getByLabel('Keep it in this browser').check()
    await chat.button('Use').click()
  }
  await enter('sk-surety-wrong', false)
  await tab.getByText('The gateway refuses it').waitFor()
  await chat.button('Close').click()
  await enter(secret, false)
  await tab.getByText('The gateway takes it.').waitFor()
  await chat.button('Close').click()
  await chat.ready()
  await chat.wish({ 'Longest answer': 8 })
  await chat.askAndWait('Who goes there?')
  const kept = () => tab.evaluate(async () => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, await new Promise((resolve) => {
    const opened = indexedDB.open('surety')
    opened.onsuccess = () => (opened.result.transaction('settings').objectStore('settings').getAll().onsuccess = (event) => resolve(event.target.result))
  })]))
  assert.ok(!(await kept()).includes(secret))
  await tab.reload()
  await enter(secret, true)
  await tab.getByText('The gateway takes it.').waitFor()
  assert.ok((await kept()).includes(secret))
  await tab.reload()
  await chat.ready()
  assert.deepEqual([tab.problems, tab.strangers], [[], []])
  await context.close()
})
