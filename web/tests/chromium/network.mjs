/** A network of this machine's own, and a line to it that tests may cut. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer, request } from 'node:http'
import { createInterface } from 'node:readline'

export const BINARY = process.env.SURETY ?? new URL('../../../target/debug/surety', import.meta.url).pathname
const READY_MS = 120_000

/** `surety up`, on free ports, keeping nothing unless it is told where. */
export async function startNetwork(args = ['--workers', '2', '--validators', '0'], keep = ['--ephemeral']) {
  const child = spawn(BINARY, ['up', '--json', ...keep, '--port', '0', ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  let log = ''
  child.stderr.on('data', (data) => (log = (log + data).slice(-20_000)))
  const ready = new Promise((resolve, reject) => {
    createInterface(child.stdout).once('line', (line) => resolve(JSON.parse(line)))
    child.once('exit', (code) => reject(new Error(`surety up ended (${code}): ${log}`)))
    child.once('error', reject)
    setTimeout(() => reject(new Error(`surety up is not ready: ${log}`)), READY_MS).unref()
  })
  const up = await ready
  const stop = async () => {
    if (child.exitCode !== null) return
    child.kill('SIGINT')
    await once(child, 'exit')
  }
  return { ...up, origin: up.base_url.replace(/\/v1$/, ''), log: () => log, stop }
}

/**
 * A line to a gateway. `say` may answer a chat in its place: it is given the body, and returns pieces of text or null. `state` says what becomes of
 * the others:
 * - `isEndless`: the model is asked to go on to its limit, since the demonstration is soon done;
 * - `pauseMs`: between two pieces of a stream;
 * - `bytesBeforeCut`: of the next stream; then it breaks off;
 * - `isSilent`: chats are not answered at all;
 * - `forge`: what becomes of a receipt on its way, by its path and text.
 */
export async function startLine(origin, say = () => null) {
  const state = { isCut: false, isSilent: false, isEndless: false, pauseMs: 0, chats: 0, bytesBeforeCut: Infinity, forge: null, tell: null }
  const open = new Set()
  const target = new URL(origin)
  const server = createServer(async (asked, answer) => {
    if (state.isCut) return asked.socket.destroy()
    const isChat = asked.url === '/v1/chat/completions'
    if (isChat && state.isSilent) return undefined
    const [, looked] = /^\/v1\/receipts\/([^/]+)\/ledger$/.exec(asked.url) ?? []
    if (state.tell && looked) {
      answer.writeHead(200, { 'content-type': 'application/json' })
      return answer.end(JSON.stringify(await state.tell(looked)))
    }
    const chunks = []
    for await (const chunk of asked) chunks.push(chunk)
    let body = Buffer.concat(chunks)
    const said = isChat ? say(body.toString()) : null
    if (isChat) state.chats += 1
    if (said) return stream(said, answer)
    if (isChat && state.isEndless) body = Buffer.from(JSON.stringify({ ...JSON.parse(body), ignore_eos: true }))
    const headers = { ...asked.headers, host: target.host, 'content-length': body.length }
    const passed = request({ host: target.hostname, port: target.port, path: asked.url, method: asked.method, headers }, async (response) => {
      if (state.forge && /^\/v1\/receipts\/[^/]+$/.test(asked.url) && response.statusCode === 200) {
        const text = Buffer.concat(await response.toArray()).toString()
        answer.writeHead(200, { 'content-type': 'application/json' })
        return answer.end(state.forge(text, asked.url))
      }
      answer.writeHead(response.statusCode, response.headers)
      let bytes = 0
      try {
        for await (const chunk of response) {
          bytes += chunk.length
          if (isChat && bytes > state.bytesBeforeCut) {
            state.bytesBeforeCut = Infinity
            throw new Error('cut')
          }
          for (const piece of isChat && state.pauseMs > 0 ? chunk.toString().split(/(?<=\n\n)/) : [chunk]) {
            answer.write(piece)
            if (isChat && state.pauseMs > 0) await new Promise((resolve) => setTimeout(resolve, state.pauseMs))
          }
        }
        answer.end()
      } catch {
        passed.destroy()
        asked.socket.destroy()
      }
    })
    passed.on('error', () => asked.socket.destroy())
    answer.once('close', () => passed.destroy())
    passed.end(body)
  })
  server.on('connection', (socket) => {
    open.add(socket)
    socket.on('close', () => open.delete(socket))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    origin: `http://127.0.0.1:${server.address().port}`,
    state,
    cut() {
      state.isCut = true
      for (const socket of open) socket.destroy()
    },
    mend() {
      state.isCut = false
    },
    async stop() {
      for (const socket of open) socket.destroy()
      server.close()
    },
  }
}

const ID = `req_${'0'.repeat(31)}1`

async function stream(pieces, answer) {
  answer.writeHead(200, { 'content-type': 'text/event-stream', 'x-request-id': ID })
  let said = 0
  const chunk = (value) => `data: ${JSON.stringify(value)}\n\n`
  let position = 0
  for (const piece of pieces) {
    position += Buffer.byteLength(piece)
    answer.write(`id: ${ID}:${position}\n${chunk({ choices: [{ index: 0, delta: { content: piece } }] })}`)
    if ((said += 1) % 8 === 0) await new Promise((resolve) => setTimeout(resolve, 4))
  }
  answer.write(chunk({ choices: [{ index: 0, delta: {}, finish_reason: 'stop' }] }))
  const surety = {
    request_id: ID, receipt: `/v1/receipts/${ID}`, model: 'blake3:' + '1'.repeat(64), tier: 'exact', workers: ['2'.repeat(64)], verification: 'not-requested', handovers: 0,
    cost: '12', checked: ['its signatures'], not_checked: ['that the model was run'],
  }
  answer.write(chunk({ choices: [], usage: { prompt_tokens: 3, completion_tokens: pieces.length }, surety }))
  answer.end('data: [DONE]\n\n')
}
