import { bytes } from '../../shared/words'
import type { Chat, Message } from '../messages'
import { pathTo } from '../tree'

/** All of a chat, every branch of it, for programs. */
export function asJson(chat: Chat, messages: Message[]): string {
  const kept = messages.map(({ resume: _, ...message }) => message)
  return JSON.stringify({ surety_chat: 1, ...chat, messages: kept }, null, 2)
}

/** The branch that is shown, for people. */
export function asMarkdown(chat: Chat, messages: Message[]): string {
  const path = pathTo(new Map(messages.map((message) => [message.id, message])), chat.leaf)
  const parts = path.map((message) => {
    const who = message.role === 'user' ? 'You' : message.model || 'Assistant'
    const attached = (message.attachments ?? []).map(({ name, text }) => `*Attached: ${name} (${bytes(new Blob([text]).size)})*\n\n`)
    const ended = message.state === 'stopped' ? '\n\n*(stopped)*' : message.state === 'failed' ? '\n\n*(broken off)*' : ''
    const receipt = message.note?.request_id ? `\n\n*Request ${message.note.request_id}*` : ''
    return `## ${who}\n\n${attached.join('')}${message.text.trim()}${ended}${receipt}`
  })
  const system = chat.wishes.system.trim()
  return [`# ${chat.title}`, ...(system ? [`> ${system.replace(/\n/g, '\n> ')}`] : []), ...parts].join('\n\n') + '\n'
}

export const fileName = (chat: Chat, extension: string): string =>
  `${chat.title.replace(/[^\p{L}\p{N}]+/gu, '-').replace(/^-|-$/g, '').slice(0, 60) || 'chat'}.${extension}`
