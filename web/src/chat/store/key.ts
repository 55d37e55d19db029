/** The key that the chat and the pages share: in this browser, if it is to be kept. */
import { keepSetting, setting } from './database'
import { tell } from './tabs'

export const keptKey = (): Promise<string | undefined> => setting<string>('key').catch(() => undefined)

/** Keeps a key, or forgets the one that was kept; other tabs are told. Whether it is kept now. */
export async function keepKey(key: string, isKept: boolean): Promise<boolean> {
  const kept = isKept && key !== ''
  const isWritten = await keepSetting('key', kept ? key : undefined).then(
    () => true,
    () => false,
  )
  tell({ kind: 'key' })
  return kept && isWritten
}
