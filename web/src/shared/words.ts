/** Numbers and sizes as people read them. */

const WHOLE = new Intl.NumberFormat('en')

export const whole = (value: number): string => WHOLE.format(value)

export const count = (value: number, one: string, many = `${one}s`): string => `${whole(value)} ${value === 1 ? one : many}`

export function bytes(value: number): string {
  if (value < 1000) return count(value, 'byte')
  const units = ['kB', 'MB', 'GB', 'TB']
  let unit = -1
  do {
    value /= 1000
    unit += 1
  } while (value >= 999.5 && unit < units.length - 1)
  return `${value < 9.95 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`
}

/** Micro-credits, as decimal text, in credits. */
export function credits(micro: string): string {
  if (!/^\d{1,30}$/.test(micro)) return 'unknown'
  const digits = micro.padStart(7, '0')
  const fraction = digits.slice(-6).replace(/0+$/, '')
  const amount = digits.slice(0, -6) + (fraction ? `.${fraction}` : '')
  return `${amount} ${amount === '1' ? 'credit' : 'credits'}`
}

export const short = (key: string): string => (key.length > 14 ? `${key.slice(0, 6)}…${key.slice(-4)}` : key)

export function errorText(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
