// The stock npm clients `@x402/fetch` and `@x402/evm` against `surety up --x402`: pay by the request, with and without OpenAI's client.
// Usage: node x402_client.mjs BASE_URL SURETY DATA_DIR   (the binary, and the directory that the network runs in)
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { x402Client, wrapFetchWithPayment } from '@x402/fetch'
import { ExactEvmScheme } from '@x402/evm/exact/client'
import OpenAI from 'openai'
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
const [accepted] = decoded(unpaid.headers.get('payment-required')).accepts
const client = new x402Client()
client.setSpendControls({
  allowedAssets: [{ network: accepted.network, asset: accepted.asset, maxAmountPerPayment: String(10n ** 18n) }],
})
let paid
client.register(accepted.network, new ExactEvmScheme(account))
const tapped = (input, init) => {
  const request = new Request(input, init)
  paid = request.headers.get('payment-signature') ?? paid
  return fetch(request)
}
const paying = wrapFetchWithPayment(tapped, client)

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

const openai = new OpenAI({ baseURL, apiKey: 'unused', fetch: paying })
const whole = await openai.chat.completions.create(body)
assert.ok(whole.choices[0].message.content)
let text = ''
for await (const chunk of await openai.chat.completions.create({ ...body, stream: true })) {
  text += chunk.choices[0]?.delta?.content ?? ''
}
assert.ok(text)
console.log('x402 (npm): paid and refused as it should be')
