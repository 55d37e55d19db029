import assert from 'node:assert/strict'
import test from 'node:test'
import { GrowingMarkdown, safeLink, type Block } from '../../src/chat/markdown/parser'
import { random } from './random'

const PARTS = [
  '# A heading\n\n', 'Some *words* and `code`.\n\n', '- one\n- two\n\n  more of two\n\n- three\n\n', '1. first\n2. second\n\n', '> said\n> again\n\n',
  '```python\nprint("a\n\nb")\n```\n\n', '| a | b |\n|---|---|\n| 1 | 2 |\n\n', '$$\nx^2\n$$\n\n', '\\[ a\n+ b \\]\n\n', 'It costs $5, or $6.\n\n', '---\n\n',
  'Line one\nline two\nline three\n', 'Über 日本語 🙂\n\n', '<b onclick="x">raw</b>\n\n', 'Title\n===\n\n',
]

/** What is shown, without how it was divided. */
const shape = (blocks: Block[]): string => JSON.stringify(blocks.map(({ type, raw }) => [type, raw.trimEnd()]))

function grown(text: string, step: (left: number) => number): GrowingMarkdown {
  const markdown = new GrowingMarkdown()
  for (let at = 0; at < text.length; ) {
    at += step(text.length - at)
    markdown.update(text.slice(0, at))
  }
  return markdown
}

test('what grew is what is read at once', () => {
  for (let seed = 0; seed < 300; seed += 1) {
    const below = random(seed)
    const text = Array.from({ length: 1 + below(8) }, () => PARTS[below(PARTS.length)]).join('')
    const whole = new GrowingMarkdown()
    whole.update(text)
    const markdown = grown(text, (left) => Math.min(left, 1 + below(9)))
    assert.equal(shape([...markdown.settled, ...markdown.tail]), shape([...whole.settled, ...whole.tail]), `seed ${seed}: ${JSON.stringify(text)}`)
  }
})

test('what is settled is not read again', () => {
  const text = Array.from({ length: 400 }, (_, index) => `Paragraph ${index} has *some* words.\n\n`).join('')
  const markdown = new GrowingMarkdown()
  let read = 0
  for (let at = 10; at <= text.length; at += 10) {
    markdown.update(text.slice(0, at))
    read += markdown.tail.reduce((sum, block) => sum + block.raw.length, 0)
  }
  assert.equal(markdown.settled.length + markdown.tail.length, 400)
  // Each update reads a paragraph or two, and not what came before.
  assert.ok(read / (text.length / 10) < 100, `${read}`)
})

test('a long paragraph of lines is divided, and nothing of it is lost', () => {
  const lines = Array.from({ length: 800 }, (_, index) => `The sea is deep and wide, line ${index}`).join('\n')
  const markdown = grown(lines, () => 57)
  const tail = markdown.tail.reduce((sum, block) => sum + block.raw.length, 0)
  assert.ok(tail < 4000 && markdown.settled.every((block) => block.continues), `${tail}`)
  assert.equal([...markdown.settled, ...markdown.tail].map(({ raw }) => raw).join(''), lines)
})

test('another text begins anew', () => {
  const markdown = new GrowingMarkdown()
  markdown.update('# One\n\ntwo\n\nthree')
  assert.equal(markdown.update('Other\n\nwords'), 0)
  assert.equal(shape([...markdown.settled, ...markdown.tail]), shape([{ type: 'paragraph', raw: 'Other' }, { type: 'paragraph', raw: 'words' }] as Block[]))
})

test('prices are no formulas, and formulas are', () => {
  const formulas = (text: string): string[] => {
    const markdown = new GrowingMarkdown()
    markdown.update(text)
    const all = [...markdown.settled, ...markdown.tail].flatMap((block) => [block, ...(('tokens' in block && block.tokens) || [])])
    return all.filter(({ type }) => type === 'math').map((token) => (token as unknown as { text: string }).text)
  }
  assert.deepEqual(formulas('It costs $5 and $10.'), [])
  assert.deepEqual(formulas('So $x^2$ and \\(y\\).'), ['x^2', 'y'])
  assert.deepEqual(formulas('In `$x$` nothing.'), [])
  assert.deepEqual(formulas('$$\na\n$$'), ['a'])
  assert.deepEqual(formulas('A sum \\[ b \\] within.'), ['b'])
})

test('any text is read', () => {
  const signs = ['`', '*', '_', '[', ']', '(', ')', '$', '\\', '<', '>', '|', '-', '#', '\n', ' ', 'a', '1.', '~', '!', '\u0000', '\ud800']
  for (let seed = 0; seed < 300; seed += 1) {
    const below = random(seed)
    const text = Array.from({ length: below(120) }, () => signs[below(signs.length)]).join('')
    const markdown = grown(text, () => 1 + below(7))
    assert.ok(Array.isArray(markdown.tail), `seed ${seed}`)
  }
})

test('links lead to sites and mail, and nowhere else', () => {
  for (const href of ['https://example.org/a?b', 'http://example.org', 'mailto:a@example.org']) assert.ok(safeLink(href), href)
  for (const href of ['javascript:alert(1)', 'JaVaScRiPt:alert(1)', ' javascript:alert(1)', 'java\nscript:alert(1)', 'data:text/html,x', 'vbscript:x', 'file:///etc/passwd', 'blob:x', '/v1/models', '//example.org', '']) {
    assert.equal(safeLink(href), null, href)
  }
})
