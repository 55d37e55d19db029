/** Following answers, against a gateway by script: what is sent again, and what becomes of the text. */
import assert from 'node:assert/strict'
import test from 'node:test'
import { AnswerFailed, follow, type End, type Progress } from '../../src/chat/answer/follow'
import type { Resume } from '../../src/chat/messages'

const ID = 'req_0a64ab5c7bb5f1d3f1bb0c5f6d1e6c0d'

type Reply = { events: string[]; cut?: boolean } | { status: number; error: object } | { json: object } | 'unreachable'

const word = (content: string, position: number | null) => `${position === null ? '' : `id: ${ID}:${position}\n`}data: ${JSON.stringify({ choices: [{ delta: { content } }] })}\n\n`
const LAST = `data: ${JSON.stringify({ choices: [{ delta: {}, finish_reason: 'stop' }] })}\n\n`
const NOTE = `data: ${JSON.stringify({ choices: [], usage: { prompt_tokens: 3, completion_tokens: 2 }, surety: { request_id: ID, handovers: 0 } })}\n\n`
const END = [LAST, NOTE, 'data: [DONE]\n\n']
const error = (code: string, message: string, retryable: boolean, param: string | null = null) => ({ error: { code, message, param, metadata: { retryable, retry_after_ms: 1 } } })

async function run(replies: Reply[], begun: Partial<Resume> & { text?: string } = {}, act?: (abort: AbortController) => void) {
  const asked: (string | null)[] = []
  const texts: string[] = []
  const waits: (string | null)[] = []
  const abort = new AbortController()
  const real = globalThis.fetch
  globalThis.addEventListener ??= (() => undefined) as never
  globalThis.removeEventListener ??= (() => undefined) as never
  globalThis.fetch = (async (path: string, init: RequestInit) => {
    init.signal?.throwIfAborted()
    asked.push(String(path).startsWith('/v1/receipts/') ? String(path) : (new Headers(init.headers).get('last-event-id') ?? 'anew'))
    const reply = replies.shift() ?? 'unreachable'
    if (reply === 'unreachable') throw new TypeError('fetch failed')
    if ('json' in reply) return Response.json(reply.json)
    if ('status' in reply) return Response.json(reply.error, { status: reply.status, headers: { 'x-request-id': 'req_ofTheError' } })
    const events = [...reply.events]
    const stream = new ReadableStream(
      {
        pull(controller) {
          const event = events.shift()
          if (event) controller.enqueue(new TextEncoder().encode(event))
          else if (reply.cut) controller.error(new TypeError('network error'))
          else controller.close()
        },
      },
      { highWaterMark: 0 },
    )
    return new Response(stream, { headers: { 'x-request-id': ID } })
  }) as typeof fetch
  let last: Progress = { text: begun.text ?? '', resume: { body: '{}', requestId: null, eventId: null, eventLength: 0, ...begun } }
  let end: End | null = null
  let failure: unknown = null
  try {
    const followed = follow(last, {
      key: () => '', signal: abort.signal, waiting: (why) => waits.push(why),
      progress: (progress) => {
        last = progress
        texts.push(progress.text)
        act?.(abort)
      },
    })
    end = await followed
  } catch (thrown) {
    failure = thrown
  } finally {
    globalThis.fetch = real
  }
  return { asked, texts, waits, end, failure, text: last.text, left: replies.length }
}

test('an answer that comes whole', async () => {
  const { asked, text, end, failure } = await run([{ events: [': keep-alive\n\n', word('Hel', null), word('lo', 5), ...END] }])
  assert.deepEqual([asked, text, failure], [['anew'], 'Hello', null])
  assert.deepEqual([end?.finish, end?.usage?.completion_tokens, end?.note?.request_id], ['stop', 2, ID])
})

test('a stream that breaks off is gone on with at its last event', async () => {
  const { asked, text, end } = await run([{ events: [word('Hel', 3), word('lo', null)], cut: true }, { events: [word('lo!', 6), ...END] }])
  assert.deepEqual([asked, text], [['anew', `${ID}:3`], 'Hello!'])
  assert.equal(end?.finish, 'stop')
})

test('a stream that just ends was not whole', async () => {
  const { asked, text } = await run([{ events: [word('Hel', 3)] }, 'unreachable', { events: [word('lo', 5), ...END] }])
  assert.deepEqual([asked, text], [['anew', `${ID}:3`, `${ID}:3`], 'Hello'])
})

test('before the first id, all of it is asked for again', async () => {
  const { asked, text } = await run([{ events: [word('Hel', null)], cut: true }, { events: [word('Hello', 5), ...END] }])
  assert.deepEqual([asked, text], [['anew', `${ID}:0`], 'Hello'])
  const gone = error('not_found', 'Nothing is kept of the stream.', false, 'Last-Event-ID')
  const again = await run([{ events: [word('Hel', null)], cut: true }, { status: 404, error: gone }, { events: [word('Other', 5), ...END] }])
  assert.deepEqual([again.asked, again.text, again.failure], [['anew', `${ID}:0`, 'anew'], 'Other', null])
})

test('a page that was reloaded goes on where the last one was', async () => {
  const { asked, text } = await run([{ events: [word('lo', 5), ...END] }], { text: 'Helxx', requestId: ID, eventId: `${ID}:3`, eventLength: 3 })
  assert.deepEqual([asked, text], [[`${ID}:3`], 'Hello'])
})

test('what was answered meanwhile is in the receipt', async () => {
  const whole = error('not_found', `It was answered to its end. All of it is in /v1/receipts/${ID}.`, false, 'Last-Event-ID')
  const receipt = {
    answers: [{ text: 'Hello, ' }, { text: 'world' }, { text: 'Hello, world' }],
    view: {
      envelope: { charge: '12', parts: [{ worker: 'a', output_tokens: 2 }, { worker: 'b', output_tokens: 1 }, { worker: 'c', output_tokens: 3, purpose: 'check' }] },
      answers: [{ order: { model: 'm' }, receipt: null }, { order: { model: 'm' }, receipt: { prompt_tokens: 4 } }, {}],
    },
  }
  const { asked, text, end } = await run([{ status: 404, error: whole }, { json: receipt }], { text: 'Hel', requestId: ID, eventId: `${ID}:3`, eventLength: 3 })
  assert.equal(end?.note?.request_id, ID)
  assert.deepEqual([asked, text], [[`${ID}:3`, `/v1/receipts/${ID}`], 'Hello, world'])
  assert.deepEqual([end?.usage, end?.note?.workers, end?.note?.handovers, end?.note?.cost], [{ prompt_tokens: 4, completion_tokens: 3 }, ['a', 'b'], 1, '12'])
})

test('what may pass is tried again, and what cannot is said', async () => {
  const busy = { status: 503, error: error('no_worker', 'No worker is ready. id=req_1', true) }
  const later = await run([busy, busy, { events: [word('Hi', 2), ...END] }])
  assert.deepEqual([later.text, later.waits.includes('No worker is ready.')], ['Hi', true])
  const { failure, asked } = await run([{ status: 400, error: error('context_length_exceeded', 'Too long.', false) }, busy])
  assert.ok(failure instanceof AnswerFailed)
  assert.deepEqual([failure.failure.code, failure.failure.message, asked.length], ['context_length_exceeded', 'Too long.', 1])
})

test('an error within the stream is one', async () => {
  const frame = `data: ${JSON.stringify(error('verification_failed', 'It does not match.', false))}\n\n`
  const { failure, text } = await run([{ events: [word('Hel', 3), frame] }])
  assert.ok(failure instanceof AnswerFailed)
  assert.deepEqual([failure.failure.code, text], ['verification_failed', 'Hel'])
})

test('a reader who stops is not kept waiting', async () => {
  const { failure, text, left } = await run([{ events: [word('Hel', 3)], cut: true }, { events: END }], {}, (abort) => abort.abort(new DOMException('stopped', 'AbortError')))
  assert.equal((failure as Error).name, 'AbortError')
  assert.deepEqual([text, left], ['', 2])
})
