// The stock npm clients `@x402/fetch` and `@x402/evm` against `surety up --x402`: pay by the request and on a channel, with and
// without OpenAI's client.
// Usage: node x402_client.mjs BASE_URL SURETY DATA_DIR   (the binary, and the directory that the network runs in)
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { x402Client, wrapFetchWithPayment } from '@x402/fetch'
import { toClientEvmSigner } from '@x402/evm'
import { BatchSettlementEvmScheme } from '@x402/evm/batch-settlement/client'
import { ExactEvmScheme } from '@x402/evm/exact/client'
import OpenAI from 'openai'
import { createPublicClient, http } from 'viem'
import { generatePrivateKey, privateKeyToAccount } from 'viem/accounts'

const [baseURL, surety, dataDir] = process.argv.slice(2)
const url = `${baseURL}/chat/completions`
const messages = [{ role: 'user', content: 'Speak of the sea.' }]
const body = { model: 'shakespeare-demo', max_tokens: 24, messages }
const post = { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }
const decoded = (header) => JSON.parse(Buffer.from(header, 'base64').toString())

const account = privateKeyToAccount(generatePrivateKey())
execFileSync(surety, ['faucet', account.address, '--data-dir', dataDir], { stdio: ['ignore', 'ignore', 'inherit'] })

const unpaid = await fetch(url, post)
assert.equal(unpaid.status, 402)
const [accepted, onChannel] = decoded(unpaid.headers.get('payment-required')).accepts
assert.deepEqual([accepted.scheme, onChannel.scheme], ['exact', 'batch-settlement'])
let paid
const tapped = (input, init) => {
  const request = new Request(input, init)
  paid = request.headers.get('payment-signature') ?? paid
  return fetch(request)
}
const payingBy = (scheme) => {
  const client = new x402Client()
  client.setSpendControls({
    allowedAssets: [{ network: accepted.network, asset: accepted.asset, maxAmountPerPayment: String(10n ** 18n) }],
  })
  client.register(accepted.network, scheme)
  return wrapFetchWithPayment(tapped, client)
}
const paying = payingBy(new ExactEvmScheme(account))

const answer = await paying(url, post)
assert.equal(answer.status, 200, await answer.clone().text())
const settled = decoded(answer.headers.get('payment-response'))
assert.ok(settled.success && settled.transaction.startsWith('0x'))
assert.equal(BigInt(settled.amount), BigInt(answer.headers.get('x-surety-cost')) * 10n ** 12n)
assert.ok((await answer.json()).choices[0].message.content)

// The same payment again pays for nothing.
const again = await fetch(url, { ...post, headers: { ...post.headers, 'PAYMENT-SIGNATURE': paid } })
assert.equal(again.status, 402)
assert.equal(decoded(again.headers.get('payment-required')).error, 'invalid_exact_evm_nonce_already_used')

const withOpenAI = async (fetch) => {
  const openai = new OpenAI({ baseURL, apiKey: 'unused', fetch })
  const whole = await openai.chat.completions.create(body)
  assert.ok(whole.choices[0].message.content)
  let text = ''
  for await (const chunk of await openai.chat.completions.create({ ...body, stream: true })) {
    text += chunk.choices[0]?.delta?.content ?? ''
  }
  assert.ok(text)
}
await withOpenAI(paying)

// On a channel: the first request pays in, the others are vouchers.
const [rpc] = JSON.parse(readFileSync(`${dataDir}/up.json`)).rpc_urls
const ledger = createPublicClient({ transport: http(rpc) })
const batch = new BatchSettlementEvmScheme(toClientEvmSigner(account, ledger))
const onChannelPaying = payingBy(batch)
let charged = 0n
for (const turn of [0, 1, 2]) {
  const answer = await onChannelPaying(url, post)
  assert.equal(answer.status, 200, await answer.clone().text())
  const { success, transaction, extra } = decoded(answer.headers.get('payment-response'))
  const cost = BigInt(answer.headers.get('x-surety-cost')) * 10n ** 12n
  charged += cost
  assert.ok(success && BigInt(extra.chargedAmount) === cost && cost > 0n)
  assert.equal(transaction !== '', turn === 0)
  assert.equal(BigInt(extra.channelState.chargedCumulativeAmount), charged)
}
const stale = await fetch(url, { ...post, headers: { ...post.headers, 'PAYMENT-SIGNATURE': paid } })
assert.equal(stale.status, 402)
assert.equal(
  decoded(stale.headers.get('payment-required')).error,
  'invalid_batch_settlement_evm_cumulative_amount_mismatch',
)
// After a stream the client's book is behind; the client sets it right by what it is told and what the ledger says.
await withOpenAI(onChannelPaying)
const after = await onChannelPaying(url, post)
assert.equal(after.status, 200, await after.clone().text())
const { channelState } = decoded(after.headers.get('payment-response')).extra
assert.ok(BigInt(channelState.chargedCumulativeAmount) > charged)

// What is left is given back; what was charged is claimed first.
const refunded = await batch.refund(url)
assert.ok(refunded.success && refunded.transaction.startsWith('0x'))
assert.equal(
  BigInt(refunded.amount),
  BigInt(channelState.balance) - BigInt(channelState.chargedCumulativeAmount),
)
console.log('x402 (npm): paid and refused as it should be')
