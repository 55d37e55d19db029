/** What a wallet sends to the governance module (`IGovernance`): a selector and its words. */

/** The first four bytes of the Keccak-256 of `vote(uint256,uint8)`, `queue(uint256)`, `execute(uint256)`. */
const SELECTORS = { vote: '943e8216', queue: 'ddf0b009', execute: 'fe0d94c1' }
const WORD_DIGITS = 64

export type Support = 'against' | 'for' | 'abstain'
export const SUPPORTS: Record<Support, number> = { against: 0, for: 1, abstain: 2 }

function word(value: number): string {
  if (!Number.isSafeInteger(value) || value < 0) throw new RangeError(`${value} is no number of a proposal`)
  return value.toString(16).padStart(WORD_DIGITS, '0')
}

export const voteData = (id: number, support: Support): string => `0x${SELECTORS.vote}${word(id)}${word(SUPPORTS[support])}`
export const queueData = (id: number): string => `0x${SELECTORS.queue}${word(id)}`
export const executeData = (id: number): string => `0x${SELECTORS.execute}${word(id)}`
