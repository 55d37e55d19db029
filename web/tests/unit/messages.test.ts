import assert from 'node:assert/strict'
import test from 'node:test'
import { takeFiles, takePaste } from '../../src/chat/attachments'
import { fullText, NO_WISHES, requestBody, titleOf, type Message } from '../../src/chat/messages'
import { asJson, asMarkdown, fileName } from '../../src/chat/store/export'
import { bytes, count, credits } from '../../src/shared/words'

const message = (more: Partial<Message>): Message => ({ id: 'a', chat: 'c', parent: null, role: 'user', text: 'Hello', created: 1, state: 'whole', ...more })

test('a request says what was wished for, and a seed by which it can be computed again', () => {
  const bare = JSON.parse(requestBody({ ...NO_WISHES, model: 'm' }, [message({})], 7))
  assert.deepEqual(bare, { model: 'm', messages: [{ role: 'user', content: 'Hello' }], stream: true, stream_options: { include_usage: true }, seed: 7 })
  const wishes = { ...NO_WISHES, model: 'm', system: 'Be brief.', temperature: 0, seed: 7, stop: ['\n'] }
  const full = JSON.parse(requestBody(wishes, [message({}), message({ role: 'assistant', text: 'Hi' })], 7))
  assert.deepEqual(full.messages.map(({ role }: { role: string }) => role), ['system', 'user', 'assistant'])
  assert.deepEqual([full.temperature, full.seed, full.stop, 'top_p' in full], [0, 7, ['\n'], false])
})

test('an attachment cannot end its own fence', () => {
  const text = fullText({ text: 'What is it?', attachments: [{ name: 'a".md', text: 'x\n````\ny' }] })
  assert.equal(text, 'File "a\\".md":\n`````\nx\n````\ny\n`````\n\nWhat is it?')
})

test('a title is a line of the first message', () => {
  assert.equal(titleOf('  # Hello *you*\nmore'), 'Hello you')
  assert.equal(titleOf('\n \n'), 'New chat')
  assert.ok(titleOf('word '.repeat(40)).length <= 60)
})

test('files are taken within bounds, and refused in words', async () => {
  const file = (name: string, content: BlobPart) => new File([content], name)
  const taken = await takeFiles(
    [file('a.txt', 'fine'), file('b.bin', new Uint8Array([0xff, 0xfe, 0])), file('c.txt', 'x\0y'), file('d.txt', 'y'.repeat(600_000))], [],
  )
  assert.deepEqual(taken.attachments, [{ name: 'a.txt', text: 'fine' }])
  assert.equal(taken.refused.length, 3)
  assert.match(taken.refused[2] ?? '', /600 kB.*524 kB/)
  const many = await takeFiles(Array.from({ length: 10 }, (_, index) => file(`${index}`, 'x')), [])
  assert.deepEqual([many.attachments.length, many.refused.length], [8, 2])
})

test('a long paste becomes an attachment, and a huge one is refused', () => {
  assert.equal(takePaste('short', []), null)
  const long = takePaste('x'.repeat(7000), [])
  assert.deepEqual(long?.attachments.map(({ name }) => name), ['pasted.txt'])
  assert.equal(takePaste('x'.repeat(7000), long?.attachments ?? [])?.attachments[1]?.name, 'pasted-2.txt')
  const huge = takePaste('x'.repeat(100_000_000), [])
  assert.deepEqual(huge?.attachments, [])
  assert.match(huge?.refused[0] ?? '', /100 MB/)
})

test('exports hold every version for programs, and the one that is shown for people', () => {
  const chat = { id: 'c', title: 'Über/alles?', isNamed: true, created: 1, updated: 2, wishes: { ...NO_WISHES, system: 'Be\nbrief' }, leaf: 'c2' }
  const messages = [
    message({ id: 'q' }), message({ id: 'c1', parent: 'q', role: 'assistant', text: 'One', created: 2 }),
    message({ id: 'c2', parent: 'q', role: 'assistant', text: 'Two', created: 3, state: 'stopped', model: 'm', resume: { body: 'secret', requestId: null, eventId: null, eventLength: 0 } }),
  ]
  const json = asJson(chat, messages)
  assert.equal(JSON.parse(json).messages.length, 3)
  assert.ok(!json.includes('secret'))
  assert.equal(asMarkdown(chat, messages), '# Über/alles?\n\n> Be\n> brief\n\n## You\n\nHello\n\n## m\n\nTwo\n\n*(stopped)*\n')
  assert.equal(fileName(chat, 'md'), 'Über-alles.md')
})

test('amounts and sizes as people read them', () => {
  assert.deepEqual([credits('0'), credits('1000000'), credits('12'), credits('100000'), credits('2500000'), credits('x')], ['0 credits', '1 credit', '0.000012 credits', '0.1 credits', '2.5 credits', 'unknown'])
  assert.deepEqual([bytes(1), bytes(999), bytes(2_835_200), bytes(999_600), bytes(100_000_000)], ['1 byte', '999 bytes', '2.8 MB', '1.0 MB', '100 MB'])
  assert.deepEqual([count(1, 'worker'), count(1200, 'worker')], ['1 worker', '1,200 workers'])
})
