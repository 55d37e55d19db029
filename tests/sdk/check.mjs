// The Vercel AI SDK against a running Surety: text, stream, object, tools, vectors, responses, cancel, errors; and the official
// openai client's model list.
// Usage: node check.mjs BASE_URL [--report FILE]. The model `tooled`, whose template shows tools, must be served.
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { createOpenAI } from '@ai-sdk/openai'
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import { embed, embedMany, generateText, jsonSchema, Output, stepCountIs, streamText, tool } from 'ai'
import OpenAI from 'openai'

const [baseURL, flag, file] = process.argv.slice(2)
const root = baseURL.replace(/\/v1$/, '')
const surety = createOpenAICompatible({ name: 'surety', baseURL, includeUsage: true, supportsStructuredOutputs: true })
const openai = createOpenAI({ baseURL, apiKey: 'none' })
const model = surety('shakespeare-demo')
const prompt = 'Speak of the sea.'
const weather = tool({
  description: 'Of a place.',
  inputSchema: jsonSchema({
    type: 'object', properties: { place: { enum: ['Rome', 'Paris'] } }, required: ['place'], additionalProperties: false,
  }),
  execute: async () => 'Warm.',
})
const watch = jsonSchema({
  type: 'object', properties: { friend: { type: 'boolean' } }, required: ['friend'], additionalProperties: false,
})

const activeRequests = async () => {
  const status = await (await fetch(`${root}/v1/network/status`)).json()
  return status.workers.reduce((sum, worker) => sum + worker.active_requests, 0)
}

// Asks for a call, runs the tool, and goes on with what it said.
const callsAndGoesOn = async (model) => {
  const options = { model, prompt, tools: { weather }, maxOutputTokens: 120, maxRetries: 0 }
  const forced = { type: 'tool', toolName: 'weather' }
  const called = await generateText({ ...options, toolChoice: forced })
  assert.equal(called.finishReason, 'tool-calls')
  assert.ok(['Rome', 'Paris'].includes(called.toolCalls[0].input.place))
  assert.equal(called.toolResults[0].output, 'Warm.')
  const streamed = streamText({ ...options, toolChoice: forced })
  const kinds = []
  for await (const part of streamed.fullStream) kinds.push(part.type)
  assert.ok(kinds.includes('tool-call') && kinds.includes('tool-result') && !kinds.includes('error'), kinds.join())
  const messages = [{ role: 'user', content: prompt }, ...called.response.messages]
  const after = await generateText({ model, messages, tools: { weather }, maxOutputTokens: 8, maxRetries: 0 })
  assert.ok(after.usage.inputTokens > called.usage.inputTokens, 'what the tool said is part of the prompt')
  // By itself: two steps, of which the second is asked with what the tool said.
  const steps = await generateText({
    ...options, stopWhen: stepCountIs(2),
    prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? forced : 'none' }),
  })
  assert.equal(steps.steps.length, 2)
}

const steps = {
  async text_again_by_its_seed_and_streamed() {
    const first = await generateText({ model, prompt, maxOutputTokens: 40, seed: 7 })
    assert.ok(first.text.length > 0)
    assert.ok(first.usage.outputTokens > 0)
    const second = await generateText({ model, prompt, maxOutputTokens: 40, seed: 7 })
    assert.equal(second.text, first.text)
    const streamed = streamText({ model, prompt, maxOutputTokens: 40, seed: 7 })
    let text = ''
    for await (const part of streamed.textStream) text += part
    assert.equal(text, first.text)
    assert.ok(['stop', 'length'].includes(await streamed.finishReason))
    assert.ok((await streamed.usage).outputTokens > 0)
  },
  async models() {
    const listed = []
    for await (const entry of new OpenAI({ baseURL, apiKey: 'none' }).models.list()) listed.push(entry.id)
    assert.ok(listed.includes('shakespeare-demo'))
  },
  async objects() {
    for (const asked of [model, openai.chat('shakespeare-demo'), openai.responses('shakespeare-demo')]) {
      const made = await generateText({ model: asked, prompt, output: Output.object({ schema: watch }), maxOutputTokens: 200, maxRetries: 0 })
      assert.equal(typeof made.output.friend, 'boolean')
    }
    const streamed = streamText({ model, prompt, output: Output.object({ schema: watch }), maxOutputTokens: 200, maxRetries: 0 })
    assert.equal(typeof (await streamed.output).friend, 'boolean')
  },
  async tools_in_chats() { await callsAndGoesOn(surety('tooled')) },
  async tools_in_responses() { await callsAndGoesOn(openai.responses('tooled')) },
  async vectors() {
    const asked = surety.embeddingModel('shakespeare-demo')
    const { embedding } = await embed({ model: asked, value: 'The sea' })
    const values = ['The sea', ...Array.from({ length: 299 }, (_, index) => `The sea, ${index}`)]
    const many = await embedMany({ model: openai.embedding('shakespeare-demo'), values })
    assert.equal(many.embeddings.length, 300)
    assert.deepEqual(many.embeddings[0], embedding)
  },
  // Text, stream, and a conversation that names what was said before by its id.
  async responses() {
    const responses = openai.responses('shakespeare-demo')
    const response = await generateText({ model: responses, prompt, maxOutputTokens: 40 })
    assert.ok(response.text.length > 0 && response.usage.outputTokens > 0)
    const told = streamText({ model: responses, prompt, maxOutputTokens: 40 })
    let heard = ''
    for await (const part of told.textStream) heard += part
    assert.ok(heard.length > 0 && ['stop', 'length'].includes(await told.finishReason))
    const messages = [{ role: 'user', content: prompt }, ...response.response.messages, { role: 'user', content: 'Go on.' }]
    const next = await generateText({ model: responses, messages, maxOutputTokens: 8 })
    assert.ok(next.usage.inputTokens > response.usage.inputTokens, 'what was said before is part of the prompt')
  },
  async cancelled_in_mid_stream() {
    const abort = new AbortController()
    const cancelled = streamText({ model, prompt, maxOutputTokens: 900, abortSignal: abort.signal, onError() {} })
    for await (const _ of cancelled.textStream) { abort.abort(); break }
    for (let tries = 0; (await activeRequests()) > 0; tries++) {
      assert.ok(tries < 50, 'cancelled work still runs')
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
  },
  async errors_say_what_happened() {
    await assert.rejects(
      generateText({ model: surety('shakespear-demo'), prompt, maxRetries: 0 }),
      (error) => /shakespeare-demo/.test(error.message),
    )
  },
}

const failed = []
let passed = 0
for (const [name, step] of Object.entries(steps)) {
  try {
    await step()
    passed++
  } catch (error) {
    console.error(error)
    failed.push({ test: name, why: String(error.message ?? error).split('\n')[0].slice(0, 300) })
  }
}
const pins = JSON.parse(readFileSync(new URL('package.json', import.meta.url))).dependencies
const version = `ai ${pins.ai}, @ai-sdk/openai ${pins['@ai-sdk/openai']}`
console.log(`ai-sdk ${version}: ${passed} of ${passed + failed.length} pass, ${failed.length} failed`)
for (const { test, why } of failed) console.log(`  FAILED ${test}: ${why}`)
if (flag === '--report') writeFileSync(file, JSON.stringify({ suite: 'ai-sdk', version, passed, listed: [], failed }, null, 1))
process.exit(failed.length ? 1 : 0)
