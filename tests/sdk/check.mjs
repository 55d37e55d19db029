// The Vercel AI SDK against a running Surety: text, stream, responses, cancel, errors; and the official openai client's model list.
// Usage: node check.mjs BASE_URL
import assert from 'node:assert/strict'
import { createOpenAI } from '@ai-sdk/openai'
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import { generateText, streamText } from 'ai'
import OpenAI from 'openai'

const baseURL = process.argv[2]
const root = baseURL.replace(/\/v1$/, '')
const surety = createOpenAICompatible({ name: 'surety', baseURL, includeUsage: true })
const model = surety('shakespeare-demo')
const prompt = 'Speak of the sea.'

const activeRequests = async () => {
  const status = await (await fetch(`${root}/v1/network/status`)).json()
  return status.workers.reduce((sum, worker) => sum + worker.active_requests, 0)
}

// Text, and the same text again by its seed.
const first = await generateText({ model, prompt, maxOutputTokens: 40, seed: 7 })
assert.ok(first.text.length > 0)
assert.ok(first.usage.outputTokens > 0)
const second = await generateText({ model, prompt, maxOutputTokens: 40, seed: 7 })
assert.equal(second.text, first.text)

// Stream.
const streamed = streamText({ model, prompt, maxOutputTokens: 40, seed: 7 })
let text = ''
for await (const part of streamed.textStream) text += part
assert.equal(text, first.text)
assert.ok(['stop', 'length'].includes(await streamed.finishReason))
assert.ok((await streamed.usage).outputTokens > 0)

// Models.
const client = new OpenAI({ baseURL, apiKey: 'none' })
const listed = []
for await (const entry of client.models.list()) listed.push(entry.id)
assert.ok(listed.includes('shakespeare-demo'))

// Responses: text, stream, and a conversation that names what was said before by its id.
const responses = createOpenAI({ baseURL, apiKey: 'none' }).responses('shakespeare-demo')
const response = await generateText({ model: responses, prompt, maxOutputTokens: 40 })
assert.ok(response.text.length > 0 && response.usage.outputTokens > 0)
const told = streamText({ model: responses, prompt, maxOutputTokens: 40 })
let heard = ''
for await (const part of told.textStream) heard += part
assert.ok(heard.length > 0 && ['stop', 'length'].includes(await told.finishReason))
const messages = [{ role: 'user', content: prompt }, ...response.response.messages, { role: 'user', content: 'Go on.' }]
const next = await generateText({ model: responses, messages, maxOutputTokens: 8 })
assert.ok(next.usage.inputTokens > response.usage.inputTokens, 'what was said before is part of the prompt')

// Cancel mid-stream.
const abort = new AbortController()
const cancelled = streamText({ model, prompt, maxOutputTokens: 900, abortSignal: abort.signal, onError() {} })
for await (const _ of cancelled.textStream) { abort.abort(); break }
for (let tries = 0; (await activeRequests()) > 0; tries++) {
  assert.ok(tries < 50, 'cancelled work still runs')
  await new Promise((resolve) => setTimeout(resolve, 100))
}

// Errors say what happened.
await assert.rejects(
  generateText({ model: surety('shakespear-demo'), prompt, maxRetries: 0 }),
  (error) => /shakespeare-demo/.test(error.message),
)
console.log('AI SDK: text, stream, models, responses, cancel, errors: passed')
