/** A ledger of one validator that decides in seconds, a gateway in front of it, and a wallet that signs with a real key. */
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { promisify } from 'node:util'
import { createPublicClient, createWalletClient, defineChain, http } from 'viem'
import { generatePrivateKey, privateKeyToAccount } from 'viem/accounts'
import { BINARY } from './network.mjs'

const READY_MS = 180_000
const CHAIN_ID = 4_713
const CREDIT = 10n ** 18n

/** Everything in one hand: `operator`'s account has all the stake. Votes last long enough for a slow machine to cast them. */
export async function startLedger() {
  const folder = await mkdtemp(join(tmpdir(), 'surety-pages-'))
  const surety = async (...args) => JSON.parse((await promisify(execFile)(BINARY, [...args, '--data-dir', folder, '--json'])).stdout || 'null')
  const key = (await surety('key', 'new', 'validator', '--no-passphrase')).public
  const purse = (await surety('key', 'new', 'purse', '--account', '--no-passphrase')).address
  const [operator, stranger] = [privateKeyToAccount(generatePrivateKey()), privateKeyToAccount(generatePrivateKey())]
  const balance = (address, why) => ({ address, amount: String(1000n * CREDIT), why })
  const genesis = {
    chain_id: CHAIN_ID,
    timestamp_ms: Date.now(),
    epoch_blocks: 20,
    balances: [balance(operator.address, 'the operator’s fees'), balance(purse, 'what the gateway pays with'), balance(stranger.address, 'a <b>stranger’s</b>')],
    validators: [{ key, operator: operator.address, stake: String(10_000n * CREDIT) }],
    params: { voting_s: 60, unbonding_s: 60, timelock_s: 61, timelock_floor_s: 2, channel_delay_min_s: 1, channel_delay_max_s: 3 },
  }
  const path = join(folder, 'genesis-given.json')
  await writeFile(path, JSON.stringify(genesis))
  await promisify(execFile)(BINARY, ['validator', 'init', '--genesis', path, '--data-dir', folder])
  const children = []
  const run = async (...args) => {
    const child = spawn(BINARY, [...args, '--json', '--data-dir', folder], { stdio: ['ignore', 'pipe', 'pipe'] })
    children.push(child)
    let log = ''
    child.stderr.on('data', (data) => (log = (log + data).slice(-20_000)))
    const line = await new Promise((resolve, reject) => {
      createInterface(child.stdout).once('line', resolve)
      child.once('exit', (code) => reject(new Error(`${args[0]} ended (${code}): ${log}`)))
      setTimeout(() => reject(new Error(`${args[0]} is not ready: ${log}`)), READY_MS).unref()
    })
    return JSON.parse(line)
  }
  const stop = async () => {
    for (const child of children.reverse()) {
      if (child.exitCode !== null || child.signalCode !== null) continue
      child.kill('SIGINT')
      await once(child, 'exit')
    }
    await rm(folder, { recursive: true, force: true })
  }
  try {
    const { rpc_url } = await run('validator', 'run', '--rpc', '127.0.0.1:0', '--listen', '127.0.0.1:0')
    const ready = await run('gateway', 'run', '--listen', '127.0.0.1:0', '--genesis', path, '--rpc-url', rpc_url, '--account', 'purse')
    const chain = defineChain({ id: CHAIN_ID, name: 'Surety', nativeCurrency: { name: 'credit', symbol: 'CREDIT', decimals: 18 }, rpcUrls: { default: { http: [rpc_url] } } })
    const transport = http(rpc_url)
    const rpc = createPublicClient({ chain, transport, pollingInterval: 50 })
    const { governance } = await rpc.request({ method: 'surety_abi' })
    /** Has an account call the governance, and waits for it; returns the block's height. */
    const govern = async (account, functionName, args) => {
      const wallet = createWalletClient({ chain, account, transport })
      const hash = await wallet.writeContract({ ...governance, functionName, args })
      const receipt = await rpc.waitForTransactionReceipt({ hash, timeout: 60_000 })
      if (receipt.status !== 'success') throw new Error(`${functionName} was refused`)
      return Number(receipt.blockNumber)
    }
    const state = async (id) => (await rpc.readContract({ ...governance, functionName: 'proposal', args: [BigInt(id)] })).state
    return { origin: ready.base_url.replace(/\/v1$/, ''), rpcUrl: rpc_url, chainId: CHAIN_ID, chain, rpc, operator, stranger, govern, state, stop, validator: children[0] }
  } catch (error) {
    await stop()
    throw error
  }
}

/**
 * A wallet for a browser's pages, announced as EIP-6963 has it. It is on another chain at first, knows none but those it is told, and signs with
 * `account`. `state.isDeclining`: its owner declines.
 */
export async function injectWallet(context, account) {
  const state = { account, chainId: 1, chains: new Map([[1, null]]), isDeclining: false, asked: [] }
  const refuse = (code, message) => ({ error: { code, message } })
  const ask = async ({ method, params = [] }) => {
    state.asked.push(method)
    const url = state.chains.get(state.chainId)
    const forward = async (call, args) => {
      if (!url) return refuse(-32603, 'no such chain')
      const body = JSON.stringify({ jsonrpc: '2.0', id: 1, method: call, params: args })
      return await (await fetch(url, { method: 'POST', headers: { 'content-type': 'application/json' }, body })).json()
    }
    switch (method) {
      case 'eth_requestAccounts':
        return { result: [state.account.address] }
      case 'eth_chainId':
        return { result: `0x${state.chainId.toString(16)}` }
      case 'wallet_switchEthereumChain':
        if (!state.chains.has(Number(params[0].chainId))) return refuse(4902, 'unknown chain')
        state.chainId = Number(params[0].chainId)
        return { result: null }
      case 'wallet_addEthereumChain':
        state.chains.set(Number(params[0].chainId), params[0].rpcUrls[0])
        state.chainId = Number(params[0].chainId)
        return { result: null }
      case 'eth_sendTransaction': {
        if (state.isDeclining) return refuse(4001, 'User rejected the request.')
        const [{ from, to, data }] = params
        const number = async (call, args) => Number((await forward(call, args)).result)
        const estimated = await forward('eth_estimateGas', [{ from, to, data }])
        if (estimated.error) return estimated
        const signed = await state.account.signTransaction({
          type: 'legacy', chainId: state.chainId, to, data, value: 0n, nonce: await number('eth_getTransactionCount', [from, 'pending']),
          gas: BigInt(estimated.result), gasPrice: BigInt(await number('eth_gasPrice', [])),
        })
        return forward('eth_sendRawTransaction', [signed])
      }
      default:
        return forward(method, params)
    }
  }
  await context.exposeFunction('askWallet', ask)
  await context.addInitScript(() => {
    const provider = {
      async request(call) {
        const { result, error } = await window.askWallet(call)
        if (error) throw Object.assign(new Error(error.message), error)
        return result
      },
    }
    const detail = Object.freeze({ info: { uuid: '350670db-19fa-4704-a166-e52e178b59d2', name: 'A wallet <i>of the test</i>', icon: 'data:,', rdns: 'example.wallet' }, provider })
    const announce = () => dispatchEvent(new CustomEvent('eip6963:announceProvider', { detail }))
    addEventListener('eip6963:requestProvider', announce)
    announce()
  })
  return state
}
