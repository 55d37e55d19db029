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

/** A share of 0 to 1. What is not whole is never told as 100 %, nor what is not nothing as 0 %. */
export function percent(share: number): string {
  if (!(share >= 0 && share <= 1)) return 'unknown'
  if (share === 1 || share === 0) return `${share * 100} %`
  const digits = share > 0.99 || share < 0.01 ? 2 : 1
  const bound = 100 - 10 ** -digits
  return `${Math.min(Math.max(share * 100, 10 ** -digits), bound).toFixed(digits)} %`
}

/** A length of time, in its largest unit, or two of them. */
export function duration(ms: number): string {
  const seconds = Math.max(0, ms) / 1000
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`
  if (seconds < 99.5) return `${Math.round(seconds)} s`
  const minutes = Math.round(seconds / 60)
  if (minutes < 100) return `${minutes} min`
  const hours = Math.floor(minutes / 60)
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.round(hours / 24)} days`
}

/** How long ago, to the second. */
export const ago = (ms: number): string => (ms < 1500 ? 'now' : `${duration(Math.round(ms / 1000) * 1000).replace('.0', '')} ago`)

/** A moment in UTC, to the minute; `ms` since 1970. */
export function moment(ms: number): string {
  const at = new Date(ms)
  return Number.isNaN(at.getTime()) ? 'unknown' : `${at.toISOString().slice(0, 16).replace('T', ' ')} UTC`
}
