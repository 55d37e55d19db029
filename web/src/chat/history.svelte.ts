/** The chats of this browser, and the one that is shown. */
import { SvelteMap } from 'svelte/reactivity'
import { newId } from '../shared/id'
import { errorText } from '../shared/words'
import { NO_WISHES, titleOf, type Attachment, type Chat, type Message, type Wishes } from './messages'
import * as database from './store/database'
import * as tabs from './store/tabs'
import { leafUnder, pathTo, siblings } from './tree'

export interface Notice {
  text: string
  kind: 'caution' | 'danger'
}

class History {
  chats = $state.raw<Chat[]>([])
  /** The chat that is shown; null: a new one, of which nothing was said yet. */
  chat = $state.raw<Chat | null>(null)
  messages = new SvelteMap<string, Message>()
  /** Whether what is said next is to be kept nowhere. */
  isTemporary = $state(false)
  wishes = $state.raw<Wishes>(NO_WISHES)
  notice = $state.raw<Notice | null>(null)
  path = $derived(pathTo(this.messages, this.chat?.leaf ?? null))
  /** Answers that this tab has asked for, or follows. */
  readonly own = new Set<string>()
  /** Chats that are to be in memory only. */
  #temporary = new Set<string>()
  /** Chats of which nothing could be written yet. */
  #unwritten = new Set<string>()

  async start(): Promise<void> {
    addEventListener('hashchange', () => void this.#follow())
    try {
      const last = await database.setting<Wishes>('wishes')
      if (last) this.wishes = { ...NO_WISHES, model: last.model }
      await this.refresh()
      await this.#follow()
    } catch (error) {
      this.notice = {
        kind: 'caution',
        text: `This browser keeps no history here (${errorText(error)}). Chats work, and are gone when the page is closed.`,
      }
    }
  }

  async refresh(): Promise<void> {
    const chats = await database.allChats()
    this.chats = chats.sort((a, b) => b.updated - a.updated)
  }

  /** Shows what the address names. */
  async #follow(): Promise<void> {
    const id = /^#chat=(\w+)$/.exec(location.hash)?.[1]
    if (id === this.chat?.id || (!id && this.chat && this.#temporary.has(this.chat.id))) return
    if (id) await this.open(id)
    else this.startNew(false)
  }

  async open(id: string): Promise<void> {
    const chat = await database.chat(id)
    if (!chat) return this.startNew(false)
    const messages = await database.messagesOf(id)
    this.messages.clear()
    for (const message of messages) this.messages.set(message.id, message)
    this.chat = chat
    this.wishes = { ...NO_WISHES, ...chat.wishes }
    this.isTemporary = false
    this.#address(id)
  }

  startNew(isTemporary: boolean): void {
    this.chat = null
    this.messages.clear()
    this.wishes = { ...NO_WISHES, model: this.wishes.model }
    this.isTemporary = isTemporary
    this.#address(null)
  }

  #address(id: string | null): void {
    const address = id ? `#chat=${id}` : location.pathname
    if (location.hash !== (id ? address : '')) history.pushState(null, '', address)
  }

  isKept(chat: string): boolean {
    return !this.#temporary.has(chat)
  }

  /** When what is said next is said: after all that was said in this chat, however this machine's clock is set meanwhile. */
  #next(): number {
    return [...this.messages.values()].reduce((latest, { created }) => Math.max(latest, created + 1), Date.now())
  }

  /** Adds a message of the user's, and the one that is to answer it. */
  async ask(parent: string | null, text: string, attachments: Attachment[]): Promise<Message> {
    const now = Date.now()
    const chat = this.chat ?? { id: newId(), title: titleOf(text || attachments[0]?.name || ''), isNamed: false, created: now, updated: now, wishes: this.wishes, leaf: null }
    const question: Message = {
      id: newId(), chat: chat.id, parent, role: 'user', text, created: this.#next(), state: 'whole', ...(attachments.length > 0 ? { attachments } : {}),
    }
    if (!this.chat && this.isTemporary) this.#temporary.add(chat.id)
    return this.#answerTo(chat, question, [question])
  }

  /** Adds another answer beside one, or to a message that has none. */
  async askAgain(question: Message): Promise<Message> {
    if (!this.chat) throw new Error('there is no chat')
    return this.#answerTo(this.chat, question, [])
  }

  async #answerTo(chat: Chat, question: Message, fresh: Message[]): Promise<Message> {
    const created = Math.max(this.#next(), question.created + 1)
    const answer: Message = { id: newId(), chat: chat.id, parent: question.id, role: 'assistant', text: '', created, state: 'answering', model: this.wishes.model }
    this.own.add(answer.id)
    const isNew = this.chat === null
    const change = (kept: Chat): void => {
      Object.assign(kept, { leaf: answer.id, updated: Date.now(), wishes: $state.snapshot(this.wishes) })
    }
    const changed = { ...chat }
    change(changed)
    for (const message of [...fresh, answer]) this.messages.set(message.id, message)
    this.chat = changed
    if (this.isKept(chat.id)) {
      if (isNew) this.#address(chat.id)
      if (isNew) this.#unwritten.add(chat.id)
      await this.#keep(() => this.#write(chat.id, [...fresh, answer], change))
      await database.keepSetting('wishes', $state.snapshot(this.wishes)).catch(() => undefined)
      await this.#changed(chat.id)
    }
    return answer
  }

  /** Writes what is new of a message, if its chat is still there. */
  async update(message: Message): Promise<void> {
    if (this.chat?.id === message.chat) this.messages.set(message.id, message)
    if (!this.isKept(message.chat)) return
    await this.#keep(() => this.#write(message.chat, [message]))
    tabs.tell({ kind: 'message', chat: message.chat, message: message.id })
  }

  /** Shows the newest branch under a sibling. */
  async select(message: Message): Promise<void> {
    await this.#change(message.chat, (chat) => (chat.leaf = leafUnder(this.messages, message.id)))
  }

  step(message: Message, by: number): Message | undefined {
    const all = siblings(this.messages, message)
    return all[all.findIndex((one) => one.id === message.id) + by]
  }

  async rename(id: string, title: string): Promise<void> {
    const name = title.trim().slice(0, 200)
    if (name) await this.#change(id, (chat) => Object.assign(chat, { title: name, isNamed: true }))
  }

  async setWishes(wishes: Wishes): Promise<void> {
    this.wishes = wishes
    if (this.chat) await this.#change(this.chat.id, (chat) => (chat.wishes = wishes))
  }

  async remove(id: string): Promise<void> {
    await database.deleteChat(id)
    this.#unwritten.delete(id)
    tabs.tell({ kind: 'deleted', chat: id })
    if (this.chat?.id === id) this.startNew(false)
    await this.refresh()
  }

  async eraseAll(): Promise<void> {
    await database.eraseAll()
    sessionStorage.clear()
    localStorage.clear()
    tabs.tell({ kind: 'erased' })
    this.forget()
  }

  /** Everything was erased, here or in another tab. */
  forget(): void {
    this.#unwritten.clear()
    this.chats = []
    this.startNew(false)
  }

  async #change(id: string, change: (chat: Chat) => void): Promise<void> {
    if (this.chat?.id === id) {
      const changed = { ...this.chat }
      change(changed)
      this.chat = changed
    }
    if (!this.isKept(id)) return
    await this.#keep(() => this.#write(id, [], change))
    await this.#changed(id)
  }

  async #changed(id: string): Promise<void> {
    tabs.tell({ kind: 'chat', chat: id })
    await this.refresh().catch(() => undefined)
  }

  /** Writes what is new of a chat, or all of it, where nothing could be written before. False: it was deleted. */
  async #write(id: string, messages: Message[], change?: (chat: Chat) => void): Promise<boolean> {
    if (!this.#unwritten.has(id) || this.chat?.id !== id) return database.write(id, messages, change)
    await database.addChat(this.chat, [...this.messages.values()])
    this.#unwritten.delete(id)
    return true
  }

  /** What cannot be kept stays in memory, and is said. */
  async #keep(write: () => Promise<boolean>): Promise<void> {
    try {
      if ((await write()) && this.notice?.kind === 'danger') this.notice = null
    } catch (error) {
      const isFull = error instanceof DOMException && error.name === 'QuotaExceededError'
      this.notice = {
        kind: 'danger',
        text: isFull
          ? 'This browser’s storage is full: what you see is not kept. Export this chat, or delete others, and go on.'
          : `This chat cannot be kept (${errorText(error)}). Export it before you close the page.`,
      }
    }
  }

  /** What another tab did. */
  async hear(news: tabs.News): Promise<void> {
    if (news.kind === 'erased') return this.forget()
    if (news.kind === 'deleted') {
      if (this.chat?.id === news.chat) this.startNew(false)
      await this.refresh()
    }
    if (news.kind === 'chat') {
      await this.refresh()
      if (this.chat?.id !== news.chat) return
      // What this tab has asked for, it knows best.
      for (const message of await database.messagesOf(news.chat)) if (!this.own.has(message.id)) this.messages.set(message.id, message)
      const chat = this.chats.find((one) => one.id === news.chat)
      // Which branch is shown is each tab's own, as long as it is there.
      if (chat) this.chat = { ...chat, leaf: this.path.length > 0 && !this.#extends(chat) ? this.chat.leaf : chat.leaf }
    }
    if (news.kind === 'message' && this.chat?.id === news.chat) {
      const message = await database.message(news.message)
      if (message && this.chat?.id === news.chat && !this.own.has(message.id)) this.messages.set(message.id, message)
    }
  }

  /** Whether another tab's branch goes on from the one that is shown here. */
  #extends(chat: Chat): boolean {
    return pathTo(this.messages, chat.leaf).some((message) => message.id === this.chat?.leaf)
  }
}

export const chats = new History()
