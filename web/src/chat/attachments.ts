/** Text files, and long pastes, as attachments: within bounds, and refused in words. */
import { bytes, count } from '../shared/words'
import type { Attachment } from './messages'

const FILE_BYTES_MAX = 512 << 10
const FILES_MAX = 8
const TOTAL_CHARACTERS_MAX = 1 << 20
/** A paste that is longer becomes an attachment. */
const PASTE_INLINE_MAX = 6_000
/** A message's own text, at most. */
export const TEXT_MAX = 200_000

export interface Taken {
  attachments: Attachment[]
  refused: string[]
}

export async function takeFiles(files: File[], already: Attachment[]): Promise<Taken> {
  const taken: Taken = { attachments: [...already], refused: [] }
  for (const file of files) {
    const why = await take(file, taken.attachments)
    if (why) taken.refused.push(why)
  }
  return taken
}

async function take(file: File, attachments: Attachment[]): Promise<string | null> {
  const { name } = file
  if (attachments.length >= FILES_MAX) return `${name}: a message takes ${count(FILES_MAX, 'file')} at most.`
  if (file.size > FILE_BYTES_MAX) return `${name} has ${bytes(file.size)}; a file may have ${bytes(FILE_BYTES_MAX)}. Attach a part of it.`
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(await file.arrayBuffer())
  } catch {
    return `${name} is not a text file (UTF-8). Models here read text only.`
  }
  if (text.includes('\0')) return `${name} is not a text file. Models here read text only.`
  return add({ name, text }, attachments)
}

function add(attachment: Attachment, attachments: Attachment[]): string | null {
  const total = attachments.reduce((sum, { text }) => sum + text.length, attachment.text.length)
  if (total > TOTAL_CHARACTERS_MAX) return `${attachment.name}: a message’s attachments may have ${bytes(TOTAL_CHARACTERS_MAX)} together.`
  attachments.push(attachment)
  return null
}

/** What becomes of a paste: null, it goes into the text as usual. */
export function takePaste(text: string, already: Attachment[]): Taken | null {
  if (text.length <= PASTE_INLINE_MAX) return null
  if (text.length > FILE_BYTES_MAX) {
    return {
      attachments: already,
      refused: [`What you pasted has ${bytes(text.length)}; ${bytes(FILE_BYTES_MAX)} are the most at once. Paste the part that matters. Nothing was lost.`],
    }
  }
  const number = already.filter(({ name }) => name.startsWith('pasted')).length + 1
  const taken: Taken = { attachments: [...already], refused: [] }
  const name = number === 1 ? 'pasted.txt' : `pasted-${number}.txt`
  const why = already.length >= FILES_MAX ? `A message takes ${count(FILES_MAX, 'file')} at most.` : add({ name, text }, taken.attachments)
  if (why) taken.refused.push(why)
  return taken
}
