// viem and ethers against a running ledger: transfer, stake, register, open a channel, claim, propose, vote, deploy a
// contract that calls a module, decode events and revert reasons, subscribe to heads.
// Usage: node check.mjs RPC_URL PRIVATE_KEY
import assert from 'node:assert/strict'
import crypto from 'node:crypto'
import {
  createPublicClient, createWalletClient, decodeEventLog, defineChain, encodePacked, http, keccak256, parseEther,
  parseEventLogs, toHex, webSocket, zeroAddress,
} from 'viem'
import { generatePrivateKey, privateKeyToAccount } from 'viem/accounts'
import { ethers } from 'ethers'

const [url, secret] = process.argv.slice(2)
const wsUrl = url.replace(/^http/, 'ws')
const rpc = async (method, params = []) => {
  const body = JSON.stringify({ jsonrpc: '2.0', id: 1, method, params })
  const answer = await (await fetch(url, { method: 'POST', headers: { 'content-type': 'application/json' }, body })).json()
  assert.equal(answer.error, undefined, `${method}: ${JSON.stringify(answer.error)}`)
  return answer.result
}
const modules = await rpc('surety_abi')
// A chain that has just been started has no blocks yet.
for (let tries = 0; Number(await rpc('eth_blockNumber')) < 2; tries++) {
  assert.ok(tries < 300, 'the chain makes no blocks')
  await new Promise((resolve) => setTimeout(resolve, 100))
}
const id = Number(await rpc('eth_chainId'))
const chain = defineChain({
  id, name: 'Surety', nativeCurrency: { name: 'credit', symbol: 'CR', decimals: 18 }, rpcUrls: { default: { http: [url] } },
})
const account = privateKeyToAccount(secret)
const pub = createPublicClient({ chain, transport: http(url), pollingInterval: 50 })
const wallet = createWalletClient({ chain, account, transport: http(url) })
const passed = (what) => console.log(`passed: ${what}`)
const included = async (hash) => {
  const receipt = await pub.waitForTransactionReceipt({ hash, timeout: 20_000 })
  assert.equal(receipt.status, 'success')
  return receipt
}
const write = async (module, functionName, args = [], value = 0n, client = wallet) => {
  const { address, abi } = modules[module]
  // Simulated first, as wallets do: it must say the same as the chain.
  await pub.simulateContract({ address, abi, functionName, args, value, account: client.account })
  const hash = await client.writeContract({ address, abi, functionName, args, value })
  const receipt = await included(hash)
  return { receipt, events: parseEventLogs({ abi, logs: receipt.logs }) }
}
const read = (module, functionName, args = []) => pub.readContract({ ...modules[module], functionName, args })

// Transfer.
const friend = privateKeyToAccount(generatePrivateKey())
const before = await pub.getBalance({ address: account.address })
let receipt = await included(await wallet.sendTransaction({ to: friend.address, value: parseEther('50') }))
assert.equal(receipt.gasUsed, 21_000n)
assert.equal(await pub.getBalance({ address: friend.address }), parseEther('50'))
const paid = receipt.gasUsed * receipt.effectiveGasPrice
assert.equal(await pub.getBalance({ address: account.address }), before - parseEther('50') - paid)
const block = await pub.getBlock({ blockHash: receipt.blockHash, includeTransactions: true })
assert.equal(block.transactions[receipt.transactionIndex].hash, receipt.transactionHash)
await assert.rejects(wallet.sendTransaction({ to: friend.address, value: 1n << 200n, gas: 21_000n }), /insufficient funds|exceeds the balance/)
await assert.rejects(wallet.sendTransaction({ to: friend.address, nonce: 0, gas: 21_000n }), /[Nn]once.*(too low|lower)/)
passed('viem transfers')

// Stake; events decode, and reasons of refusals.
let done = await write('staking', 'bond', [], parseEther('2000'))
assert.equal(done.events[0].eventName, 'Bonded')
assert.equal(done.events[0].args.amount, parseEther('2000'))
assert.ok((await read('staking', 'bondedOf', [account.address, account.address])) >= parseEther('2000'))
await assert.rejects(
  pub.simulateContract({ ...modules.staking, functionName: 'unjail', account }),
  (error) => typeof error.cause?.reason === 'string' && error.cause.reason.length > 0,
)
const found = await pub.getContractEvents({ ...modules.staking, eventName: 'Bonded', fromBlock: 0n })
assert.ok(found.some((log) => log.transactionHash === done.receipt.transactionHash))
passed('viem stakes, decodes events and revert reasons')

// Register an operator and a worker.
const worker = crypto.generateKeyPairSync('ed25519')
const workerKey = `0x${worker.publicKey.export({ format: 'jwk' }).x && Buffer.from(worker.publicKey.export({ format: 'jwk' }).x, 'base64url').toString('hex')}`
const message = Buffer.concat([
  Buffer.from('surety worker key v1'),
  Buffer.from(encodePacked(['uint64', 'address', 'bytes32'], [BigInt(id), account.address, workerKey]).slice(2), 'hex'),
])
const proof = toHex(crypto.sign(null, message, worker.privateKey))
const registered = await read('operators', 'operatorOf', [account.address])
if (registered.height === 0n) await write('operators', 'register', ['Example', 'https://example.org'])
done = await write('operators', 'addWorker', [workerKey, '127.0.0.1:9000', proof])
assert.equal(done.events[0].eventName, 'WorkerAdded')
assert.equal((await read('operators', 'worker', [workerKey])).operator, account.address)
passed('viem registers an operator and its worker')

// Open a channel, claim on it, settle.
const receiver = friend
const receiverWallet = createWalletClient({ chain, account: receiver, transport: http(url) })
const config = {
  payer: account.address, payerAuthorizer: account.address, receiver: receiver.address,
  receiverAuthorizer: receiver.address, token: zeroAddress, withdrawDelay: 3_600,
  salt: toHex(crypto.randomBytes(32)),
}
done = await write('channels', 'deposit', [config, parseEther('5'), zeroAddress, '0x'], parseEther('5'))
const channelId = await read('channels', 'getChannelId', [config])
assert.equal(done.events.find((event) => event.eventName === 'Deposited').args.channelId, channelId)
const maxClaimableAmount = parseEther('2')
const signature = await account.signTypedData({
  domain: { name: 'x402 Batch Settlement', version: '1', chainId: id, verifyingContract: modules.channels.address },
  types: { Voucher: [{ name: 'channelId', type: 'bytes32' }, { name: 'maxClaimableAmount', type: 'uint128' }] },
  primaryType: 'Voucher', message: { channelId, maxClaimableAmount },
})
const claim = { voucher: { channel: config, maxClaimableAmount }, signature, totalClaimed: parseEther('1.5') }
done = await write('channels', 'claim', [[claim]], 0n, receiverWallet)
assert.equal(done.events.find((event) => event.eventName === 'Claimed').args.totalClaimed, parseEther('1.5'))
const receiverBefore = await pub.getBalance({ address: receiver.address })
await write('channels', 'settle', [receiver.address, zeroAddress])
assert.equal(await pub.getBalance({ address: receiver.address }), receiverBefore + parseEther('1.5'))
await assert.rejects(
  pub.simulateContract({ ...modules.channels, functionName: 'claim', args: [[{ ...claim, totalClaimed: parseEther('3') }]], account: receiver }),
)
passed('viem opens a channel, claims and settles')

// Propose and vote.
const name = toHex('minimum_gas_price', { size: 32 })
done = await write('governance', 'proposeParameters', [[{ name, value: 2_000_000_000n }], 'Dearer gas'])
const proposal = done.events.find((event) => event.eventName === 'Proposed').args.id
done = await write('governance', 'vote', [proposal, 1])
assert.equal(done.events.find((event) => event.eventName === 'Voted').args.voter, account.address)
passed('viem proposes and votes')

// A contract that asks staking for all that is bonded: PUSH4 selector, MSTORE, STATICCALL 0x801, RETURN.
const selector = ethers.id('bondedTotal()').slice(2, 10)
const code = `63${selector}60e01b600052602060006004600061080` + '15afa5060206000f3'
const size = (code.length / 2).toString(16).padStart(2, '0')
receipt = await included(await wallet.sendTransaction({ data: `0x60${size}600c60003960${size}6000f3${code}` }))
assert.equal((await pub.getCode({ address: receipt.contractAddress })), `0x${code}`)
assert.equal(BigInt((await pub.call({ to: receipt.contractAddress })).data), await read('staking', 'bondedTotal'))
passed('viem deploys a contract that calls a module')

// Heads and logs over WebSocket.
const live = createPublicClient({ chain, transport: webSocket(wsUrl) })
const heads = []
const logs = []
const stopHeads = live.watchBlocks({ onBlock: (head) => heads.push(head.number) })
const stopLogs = live.watchContractEvent({ ...modules.staking, eventName: 'Bonded', onLogs: (some) => logs.push(...some) })
await new Promise((resolve) => setTimeout(resolve, 500))
done = await write('staking', 'bond', [], 7n)
for (let tries = 0; heads.length < 4 || !logs.some((log) => log.transactionHash === done.receipt.transactionHash); tries++) {
  assert.ok(tries < 200, `heads ${heads}, logs ${logs.length}`)
  await new Promise((resolve) => setTimeout(resolve, 50))
}
assert.ok(heads.every((head, index) => index === 0 || head === heads[index - 1] + 1n), `every head, in order: ${heads}`)
stopHeads()
stopLogs()
passed('viem subscribes to heads and logs')

// ethers.
const provider = new ethers.JsonRpcProvider(url, undefined, { polling: true, pollingInterval: 50, cacheTimeout: -1 })
const signer = new ethers.Wallet(secret, provider)
const staking = new ethers.Contract(modules.staking.address, modules.staking.abi, signer)
const sent = await staking.bond({ value: 11n })
const mined = await sent.wait()
assert.equal(mined.status, 1)
assert.equal(mined.logs[0].fragment.name, 'Bonded')
assert.equal(mined.logs[0].args.amount, 11n)
assert.ok((await staking.queryFilter('Bonded', 0)).length >= 3)
await assert.rejects(staking.unjail.staticCall(), (error) => error.code === 'CALL_EXCEPTION' && error.reason.length > 0)
await assert.rejects(signer.sendTransaction({ to: friend.address, nonce: 0, gasLimit: 21_000 }), { code: 'NONCE_EXPIRED' })
await assert.rejects(
  signer.sendTransaction({ to: friend.address, value: 1n << 200n, gasLimit: 21_000 }), { code: 'INSUFFICIENT_FUNDS' },
)
const feeData = await provider.getFeeData()
assert.ok(feeData.gasPrice > 0n)
assert.equal((await provider.getBlock('latest', true)).prefetchedTransactions.length >= 0, true)
await (await signer.sendTransaction({ to: friend.address, value: 1n })).wait()
const socket = new ethers.WebSocketProvider(wsUrl)
const next = []
await socket.on('block', (number) => next.push(number))
for (let tries = 0; next.length < 3; tries++) {
  assert.ok(tries < 200, `blocks ${next}`)
  await new Promise((resolve) => setTimeout(resolve, 50))
}
await socket.destroy()
provider.destroy()
passed('ethers stakes, reads events, tells errors apart, subscribes to heads')
process.exit(0)
