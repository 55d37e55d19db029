/** The browser, and the page as its users find their way in it. */
import { existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { chromium } from 'playwright-core'

const INSTALLED = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome']

/** The one that is named, or is installed, or that Playwright downloaded (`playwright-core install chromium-headless-shell`). */
export async function startBrowser() {
  const executablePath = process.env.CHROMIUM || INSTALLED.find(existsSync)
  return chromium.launch({ ...(executablePath ? { executablePath } : {}), args: ['--no-sandbox', '--disable-dev-shm-usage'] })
}

/** A profile of its own with one tab. What the page complains of, and whom it asks, is kept. */
export async function openTab(browser, origin, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 820 }, permissions: ['clipboard-read', 'clipboard-write'], ...options })
  context.setDefaultTimeout(30_000)
  const tab = await watch(await context.newPage())
  await tab.goto(`${origin}/`)
  return { context, tab, chat: new ChatPage(tab) }
}

export async function watch(tab) {
  tab.problems = []
  tab.strangers = []
  tab.on('console', (message) => {
    const text = message.text()
    // The browser writes down every request that fails, which tests make fail.
    if (message.type() === 'error' && !text.startsWith('Failed to load resource')) tab.problems.push(text)
  })
  tab.on('pageerror', (error) => tab.problems.push(String(error)))
  tab.on('request', (request) => {
    const { protocol, hostname } = new URL(request.url())
    if (protocol.startsWith('http') && hostname !== '127.0.0.1') tab.strangers.push(request.url())
  })
  return tab
}

/** Keeps a picture, where somebody wants to look at them. */
export async function picture(tab, name) {
  const folder = process.env.PICTURES
  if (!folder) return
  mkdirSync(folder, { recursive: true })
  await tab.screenshot({ path: join(folder, `${name}.png`) })
}

export class ChatPage {
  constructor(tab) {
    this.tab = tab
  }

  composer = () => this.tab.getByRole('textbox', { name: 'Message' })
  answers = () => this.tab.locator('article:not(.yours)')
  questions = () => this.tab.locator('article.yours')
  lastAnswer = () => this.answers().last()
  chip = () => this.lastAnswer().getByRole('button', { name: /^(Model checked|Receipt checked|Checking…|Not checked|Check failed)/ })
  button = (name) => this.tab.getByRole('button', { name, exact: true })

  async ready() {
    await this.tab.locator('.model-button .name', { hasNotText: 'Choose' }).waitFor()
  }

  async ask(text) {
    await this.composer().fill(text)
    await this.composer().press('Enter')
  }

  /** Waits until the last answer is in a state. */
  async until(state) {
    await this.tab.waitForFunction((wanted) => [...document.querySelectorAll('article:not(.yours)')].at(-1)?.dataset.state === wanted, state)
  }

  async askAndWait(text) {
    const before = await this.answers().count()
    await this.ask(text)
    await this.answers().nth(before).waitFor()
    await this.until('whole')
  }

  async text(article = this.lastAnswer()) {
    return (await article.locator('.markdown').innerText()).trim()
  }

  /** Sets what this chat asks beside its messages. */
  async wish(fields) {
    await this.button('System prompt and parameters').click()
    for (const [label, value] of Object.entries(fields)) await this.tab.getByLabel(label, { exact: true }).fill(String(value))
    await this.button('Save').click()
  }

  /** Waits until so many characters have come. */
  async untilLength(length) {
    await this.tab.waitForFunction((least) => ([...document.querySelectorAll('article:not(.yours) .markdown')].at(-1)?.textContent?.length ?? 0) >= least, length)
  }
}
