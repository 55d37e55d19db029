/**
 * History: in this browser's IndexedDB, and nowhere else.
 *
 * Messages are records of their own that one tab writes; a chat's own record is only ever changed within a transaction that has read it.
 * So two tabs lose nothing of one another.
 */
import type { Chat, Message } from '../messages'

const NAME = 'surety'
const VERSION = 1

let opened: Promise<IDBDatabase> | undefined

function database(): Promise<IDBDatabase> {
  opened ??= new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, VERSION)
    request.onupgradeneeded = () => {
      const db = request.result
      db.createObjectStore('chats', { keyPath: 'id' })
      db.createObjectStore('messages', { keyPath: 'id' }).createIndex('chat', 'chat')
      db.createObjectStore('settings')
    }
    request.onsuccess = () => {
      // A tab with a newer page may change the shape; the next look opens it anew.
      request.result.onversionchange = () => {
        request.result.close()
        opened = undefined
      }
      resolve(request.result)
    }
    request.onerror = () => reject(request.error ?? new Error('IndexedDB cannot be opened'))
    request.onblocked = () => reject(new Error('another tab holds an older version of the history open'))
  })
  opened.catch(() => (opened = undefined))
  return opened
}

type Store = 'chats' | 'messages' | 'settings'

/** Resolves once what was written is on the disk. */
async function transact<T>(stores: Store[], mode: IDBTransactionMode, act: (store: (name: Store) => IDBObjectStore) => IDBRequest<T> | void): Promise<T> {
  const db = await database()
  return new Promise((resolve, reject) => {
    const transaction = db.transaction(stores, mode)
    let request: IDBRequest<T> | void
    transaction.oncomplete = () => resolve(request ? request.result : (undefined as T))
    transaction.onerror = () => reject(transaction.error ?? new Error('the history cannot be written'))
    transaction.onabort = () => reject(transaction.error ?? new Error('the history cannot be written'))
    request = act((name) => transaction.objectStore(name))
  })
}

export const allChats = () => transact<Chat[]>(['chats'], 'readonly', (store) => store('chats').getAll())

export const chat = (id: string) => transact<Chat | undefined>(['chats'], 'readonly', (store) => store('chats').get(id))

export const messagesOf = (chat: string) => transact<Message[]>(['messages'], 'readonly', (store) => store('messages').index('chat').getAll(chat))

export const message = (id: string) => transact<Message | undefined>(['messages'], 'readonly', (store) => store('messages').get(id))

export const allMessages = () => transact<Message[]>(['messages'], 'readonly', (store) => store('messages').getAll())

/** Writes a chat and its new messages, all or nothing. */
export const addChat = (chat: Chat, messages: Message[]) =>
  transact<void>(['chats', 'messages'], 'readwrite', (store) => {
    store('chats').put(chat)
    for (const message of messages) store('messages').put(message)
  })

/** Writes messages of a chat that is still there, and changes the chat with them. False: it was deleted meanwhile. */
export async function write(id: string, messages: Message[], change?: (chat: Chat) => void): Promise<boolean> {
  let isThere = false
  await transact<void>(['chats', 'messages'], 'readwrite', (store) => {
    const found = store('chats').get(id) as IDBRequest<Chat | undefined>
    found.onsuccess = () => {
      if (!found.result) return
      isThere = true
      for (const message of messages) store('messages').put(message)
      if (!change) return
      change(found.result)
      store('chats').put(found.result)
    }
  })
  return isThere
}

export const deleteChat = (id: string) =>
  transact<void>(['chats', 'messages'], 'readwrite', (store) => {
    store('chats').delete(id)
    const cursor = store('messages').index('chat').openKeyCursor(id)
    cursor.onsuccess = () => {
      if (!cursor.result) return
      store('messages').delete(cursor.result.primaryKey)
      cursor.result.continue()
    }
  })

/** Everything this page has ever kept. */
export const eraseAll = () =>
  transact<void>(['chats', 'messages', 'settings'], 'readwrite', (store) => {
    for (const name of ['chats', 'messages', 'settings'] as const) store(name).clear()
  })

export const setting = <T>(name: string) => transact<T | undefined>(['settings'], 'readonly', (store) => store('settings').get(name))

export const keepSetting = (name: string, value: unknown) =>
  transact<void>(['settings'], 'readwrite', (store) => {
    if (value === undefined) store('settings').delete(name)
    else store('settings').put(value, name)
  })
