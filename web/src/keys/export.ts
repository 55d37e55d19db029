/** Everything that a key was charged for, page by page, as one file. */
import { GatewayError, headers } from '../shared/gateway'

/** So many pages, of ten thousand rows each: more than a gateway keeps. */
const PAGES_MAX = 64

async function page(query: string, key: string): Promise<Response> {
  const response = await fetch(`/v1/usage?${query}`, { headers: headers(key), cache: 'no-store' })
  if (!response.ok) throw GatewayError.of(response.status, await response.json().catch(() => null))
  return response
}

/** The gateway's own table; the pages behind the first come without the names of the columns. */
export async function asCsv(key: string): Promise<string> {
  let text = ''
  let after: string | null = '0'
  for (let pages = 0; after !== null; pages += 1) {
    if (pages === PAGES_MAX) throw new Error('there are more pages of usage than a gateway keeps')
    const response: Response = await page(`format=csv&after=${after}`, key)
    const told = await response.text()
    text += text === '' ? told : told.slice(told.indexOf('\n') + 1)
    after = response.headers.get('x-next')
  }
  return text
}

interface Usage {
  object: string
  data: unknown[]
  dropped: unknown
  total: unknown
  next: number | null
}

/** The gateway's own rows and sums. */
export async function asJson(key: string): Promise<string> {
  let all: Usage | null = null
  for (let pages = 0, after = 0; ; pages += 1) {
    if (pages === PAGES_MAX) throw new Error('there are more pages of usage than a gateway keeps')
    const found = (await (await page(`after=${after}`, key)).json()) as Usage
    all = all === null ? found : { ...found, data: [...all.data, ...found.data] }
    if (found.next === null || found.next === undefined) return JSON.stringify(all, null, 2)
    after = found.next
  }
}
