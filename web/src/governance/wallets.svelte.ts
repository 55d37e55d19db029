/**
 * Ethereum wallets that the browser injects: found by EIP-6963, or as `window.ethereum` (EIP-1193). All that they say is foreign: names are cut,
 * icons are not shown, and what they answer is checked before it is used.
 */

export interface Provider {
  request(call: { method: string; params?: unknown[] }): Promise<unknown>
}

export interface Wallet {
  id: string
  name: string
  provider: Provider
}

/** Where to send to. */
export interface Chain {
  id: number
  rpcUrl: string | null
}

export interface Call {
  to: string
  data: string
}

/** Why a wallet did not do it, for people. */
export class WalletError extends Error {
  override name = 'WalletError'
}

const WALLETS_MAX = 12
const NAME_MAX = 40
const LANDING_MS = 90_000
const POLL_MS = 400
const WORDS_MAX = 300
const ADDRESS = /^0x[0-9a-fA-F]{40}$/
const HASH = /^0x[0-9a-fA-F]{64}$/
/** EIP-1193's and MetaMask's codes. */
const REJECTED = 4001
const PENDING = -32002
const UNKNOWN_CHAIN = 4902

const isProvider = (value: unknown): value is Provider => typeof value === 'object' && value !== null && typeof (value as Provider).request === 'function'

export class Wallets {
  all = $state.raw<Wallet[]>([])

  /** Looks for wallets until the returned function is called; those that come later are found too. */
  follow(): () => void {
    const ended = new AbortController()
    addEventListener('eip6963:announceProvider', (event) => this.#announced((event as CustomEvent<unknown>).detail), { signal: ended.signal })
    dispatchEvent(new Event('eip6963:requestProvider'))
    const injected: unknown = (window as { ethereum?: unknown }).ethereum
    if (isProvider(injected) && !this.all.some(({ provider }) => provider === injected)) this.#add({ id: 'window.ethereum', name: 'The browser’s wallet', provider: injected })
    return () => ended.abort()
  }

  #announced(detail: unknown) {
    const { info, provider } = (detail ?? {}) as { info?: { uuid?: unknown; name?: unknown }; provider?: unknown }
    if (!isProvider(provider) || typeof info?.uuid !== 'string' || typeof info.name !== 'string') return
    const id = info.uuid.slice(0, NAME_MAX)
    if (this.all.some((wallet) => wallet.id === id)) return
    // The same wallet may stand in `window.ethereum` too.
    this.all = this.all.filter((wallet) => wallet.id !== 'window.ethereum' || wallet.provider !== provider)
    this.#add({ id, name: info.name.slice(0, NAME_MAX) || 'A wallet without a name', provider })
  }

  #add(wallet: Wallet) {
    if (this.all.length < WALLETS_MAX) this.all = [...this.all, wallet]
  }
}

/** Has a wallet make a call on a chain. Returns the transaction's hash once it has landed and was not refused. */
export async function send({ provider }: Wallet, chain: Chain, call: Call, said: (step: string) => void): Promise<string> {
  said('Asking the wallet for an account…')
  const accounts = await ask(provider, 'eth_requestAccounts')
  const from = Array.isArray(accounts) ? accounts.find((account): account is string => typeof account === 'string' && ADDRESS.test(account)) : undefined
  if (!from) throw new WalletError('The wallet gave no account.')
  await onChain(provider, chain, said)
  said('Trying it without sending…')
  const transaction = { from, to: call.to, data: call.data, value: '0x0' }
  // What the ledger would refuse is not sent, and its reason is told.
  await ask(provider, 'eth_call', [transaction, 'latest'])
  said('Waiting for you to sign in the wallet…')
  const hash = await ask(provider, 'eth_sendTransaction', [transaction])
  if (typeof hash !== 'string' || !HASH.test(hash)) throw new WalletError('The wallet did not say which transaction it sent.')
  said('Sent; waiting for a block…')
  const until = performance.now() + LANDING_MS
  while (performance.now() < until) {
    const receipt = (await ask(provider, 'eth_getTransactionReceipt', [hash])) as { status?: unknown } | null
    if (receipt) {
      if (receipt.status === '0x1') return hash
      throw new WalletError('The ledger refused it in a block: it had no effect but its fee.')
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS))
  }
  throw new WalletError(`Transaction ${hash} is in no block yet. It may still come: look before you send another.`)
}

async function onChain(provider: Provider, chain: Chain, said: (step: string) => void) {
  const wanted = `0x${chain.id.toString(16)}`
  const current = async () => String(await ask(provider, 'eth_chainId')).toLowerCase()
  if ((await current()) === wanted) return
  said('Asking the wallet to change to this chain…')
  try {
    await provider.request({ method: 'wallet_switchEthereumChain', params: [{ chainId: wanted }] })
  } catch (error) {
    if (code(error) !== UNKNOWN_CHAIN) throw told(error)
    if (!chain.rpcUrl) throw new WalletError('The wallet does not know this chain. Name a validator’s RPC below, and try again.')
    said('Asking the wallet to add this chain…')
    const nativeCurrency = { name: 'credit', symbol: 'CREDIT', decimals: 18 }
    await ask(provider, 'wallet_addEthereumChain', [{ chainId: wanted, chainName: `Surety ${chain.id}`, nativeCurrency, rpcUrls: [chain.rpcUrl] }])
  }
  if ((await current()) !== wanted) throw new WalletError('The wallet is still on another chain. Nothing was sent.')
}

async function ask(provider: Provider, method: string, params: unknown[] = []): Promise<unknown> {
  try {
    return await provider.request({ method, params })
  } catch (error) {
    throw told(error)
  }
}

/** The code of a wallet's error; some put the one that says more inside. */
function code(error: unknown): number | null {
  const outer = error as { code?: unknown; data?: { originalError?: { code?: unknown } } } | null
  const inner = outer?.data?.originalError?.code
  if (typeof inner === 'number') return inner
  return typeof outer?.code === 'number' ? outer.code : null
}

function told(error: unknown): WalletError {
  if (error instanceof WalletError) return error
  switch (code(error)) {
    case REJECTED:
      return new WalletError('You declined it in the wallet. Nothing was sent.')
    case PENDING:
      return new WalletError('The wallet is still waiting for you: open it, and answer what it asks.')
    default: {
      const words = (error as { message?: unknown } | null)?.message
      return new WalletError(typeof words === 'string' && words ? `The wallet says: ${words.slice(0, WORDS_MAX)}` : 'The wallet failed, and did not say why.')
    }
  }
}
