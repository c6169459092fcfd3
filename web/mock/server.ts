/**
 * A stand-in for the server: the REST shapes and event streams of docs/seams.md 4 over made-up data,
 * and the built console under the Content-Security-Policy the server sends.
 *
 *   node mock/server.ts [port] [--empty]        then open http://127.0.0.1:8090, admin / admin
 */
import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { extname, join } from 'node:path'
import { narrowed, ofProject, ofSystem } from './audit.ts'
import { append, count, linesOf, live, logs, make, nodes, runs, stamp, type Log } from './data.ts'
import { enrolmentToken, lists, me, totp } from './people.ts'
import type { Run, RunRequest, ScriptSpec, Task } from '../src/api/types.ts'

const port = Number(process.argv[2] ?? 8090)
if (process.argv.includes('--empty')) nodes.length = runs.length = 0
const site = join(import.meta.dirname, '../../src/fleetwire/server/api/static/console')
const policy = 'default-src \'self\'; style-src \'self\' \'unsafe-inline\'; frame-ancestors \'none\''
const types: Record<string, string> = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml', '.woff2': 'font/woff2' }

type Send = (event: string, data: unknown, id: string) => void
const runWatchers = new Map<string, Set<Send>>()
const logWatchers = new Map<string, Set<(end: boolean) => void>>()

function json(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': status >= 400 ? 'application/problem+json' : 'application/json' })
  response.end(JSON.stringify(body))
}
const problem = (response: ServerResponse, status: number, code: string, detail: string, more: object = {}) =>
  json(response, status, { type: 'about:blank', title: code.replaceAll('-', ' '), status, code, detail, ...more })

async function body<T>(request: IncomingMessage): Promise<T> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return JSON.parse(Buffer.concat(chunks).toString() || '{}') as T
}

function events(response: ServerResponse): Send {
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' })
  response.write(': hello\n\n')
  return (event, data, mark) => response.write(`event: ${event}\nid: ${mark}\ndata: ${JSON.stringify(data)}\n\n`)
}

function tell(run: Run, task?: Task): void {
  const { tasks: _, ...bare } = run
  for (const send of runWatchers.get(run.id) ?? []) {
    if (task) send('task', task, stamp(Date.now()))
    send('run', bare, stamp(Date.now()))
  }
}

function write(run: Run, task: Task, text: string, stream: 'stdout' | 'stderr'): void {
  const log = logs.get(task.attempt)!
  append(log, text, stream)
  task.log.length = log.bytes.length
  for (const wake of logWatchers.get(task.attempt) ?? []) wake(false)
  tell(run, task)
}

function end(run: Run, task: Task, outcome: Task['outcome']): void {
  const log = logs.get(task.attempt)!
  log.sealed = true
  Object.assign(task, { state: 'exited', outcome, exit_code: outcome === 'succeeded' ? 0 : null, signal: outcome === 'canceled' ? 15 : null, ended_at: stamp(Date.now()), duration: (Date.now() - Date.parse(task.started_at ?? run.created_at)) / 1000 })
  task.log = { length: log.bytes.length, sha256: createHash('sha256').update(log.bytes).digest('hex'), complete: true, state: 'sealed' }
  count(run)
  if (run.tasks.every(each => each.outcome !== null)) Object.assign(run, { state: 'ended', ended_at: stamp(Date.now()), outcome: run.tasks.find(each => each.outcome !== 'succeeded')?.outcome ?? 'succeeded' })
  for (const wake of logWatchers.get(task.attempt) ?? []) wake(true)
  tell(run, task)
  if (run.state === 'ended') for (const send of runWatchers.get(run.id) ?? []) send('end', {}, 'end')
}

function play(run: Run, lines: number): void {
  for (const task of run.tasks.filter(each => each.outcome === null)) {
    let n = 0
    const timer = setInterval(() => {
      n += 1
      if (task.outcome !== null) clearInterval(timer)
      else if (run.wish === 'stop') end(run, task, 'canceled')
      else if (n > lines) end(run, task, 'succeeded')
      else write(run, task, n % 9 === 0 ? `\x1b[33mwarn\x1b[0m retrying connection ${n}\n` : `\x1b[2m${stamp(Date.now()).slice(11, 23)}\x1b[0m line ${n}: checked ${n * 17} files 你好\n`, n % 9 === 0 ? 'stderr' : 'stdout')
    }, 300 + task.index * 90)
  }
}

function followLog(response: ServerResponse, attempt: string, log: Log, from: number): void {
  const send = events(response)
  let at = from
  const wake = (over: boolean) => {
    while (at < log.bytes.length) {
      const part = log.parts.findLast(each => each.offset <= at)!
      const next = log.parts.find(each => each.offset > at)?.offset ?? log.bytes.length
      const data = log.bytes.subarray(at, Math.min(next, at + 65536))
      send('log', { attempt, offset: at, parts: [{ offset: at, stream: part.stream, time: part.time, length: data.length, bytes: data.toString('base64') }] }, String(at + data.length))
      at += data.length
    }
    if (over) {
      send('end', {}, String(at))
      response.end()
    }
  }
  wake(log.sealed)
  const all = logWatchers.get(attempt) ?? new Set()
  logWatchers.set(attempt, all.add(wake))
  response.on('close', () => all.delete(wake))
}

function attemptRoute(request: IncomingMessage, response: ServerResponse, attempt: string, rest: string, query: URLSearchParams): void {
  const log = logs.get(attempt)
  if (!log) return problem(response, 404, 'no-such-attempt', 'There is no such attempt.')
  if (rest === '/stream') return followLog(response, attempt, log, Number(request.headers['last-event-id'] ?? query.get('offset') ?? 0))
  if (rest === '/raw') {
    response.writeHead(200, { 'content-type': 'application/octet-stream', 'content-disposition': `attachment; filename="${attempt}.log"` })
    response.end(log.bytes)
    return
  }
  const lines = linesOf(log)
  if (rest === '/search') {
    const wanted = (query.get('q') ?? '').toLowerCase()
    const limit = Number(query.get('limit') ?? 100)
    const found = lines.slice(Number(query.get('from_line') ?? 0)).filter(line => line.text.toLowerCase().includes(wanted))
    return json(response, 200, { matches: found.slice(0, limit).map(({ line, offset, text }) => ({ line, offset, text })), next_line: found[limit]?.line ?? null })
  }
  const first = query.has('tail') ? Math.max(0, lines.length - Number(query.get('tail'))) : Number(query.get('line') ?? 0)
  const many = query.has('tail') ? lines.length : Number(query.get('lines') ?? 500)
  json(response, 200, { attempt, first_line: first, lines: lines.slice(first, first + many), total_lines: lines.length, next_line: null, complete: log.sealed })
}

async function create(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const wanted = await body<RunRequest>(request)
  const pairs = (wanted.selector ?? '').split(',').map(pair => pair.trim().split('='))
  const on = wanted.nodes ? nodes.filter(node => wanted.nodes!.includes(node.name)) : nodes.filter(node => pairs.every(([key, value]) => node.labels[key!] === value))
  if (on.length === 0) return problem(response, 422, 'no-node-matches', `No node matches the selector ${wanted.selector}.`, { field: 'selector', hint: 'Labels that exist: os, role, zone, canary.', labels: { os: ['linux'] } })
  const run = make({ name: wanted.name, script: (wanted.spec as ScriptSpec).script, selector: wanted.selector, named: wanted.nodes, any: wanted.any, on: wanted.any ? on.slice(0, wanted.any) : on, outcomes: [null], ago: 0 })
  play(run, 20)
  json(response, 201, run)
}

async function route(request: IncomingMessage, response: ServerResponse, path: string, query: URLSearchParams): Promise<void> {
  const method = request.method ?? 'GET'
  const signedIn = (request.headers.cookie ?? '').includes('fleetwire_session=yes')
  if (path === '/login' && method === 'POST') {
    const { username, password } = await body<{ username: string, password: string }>(request)
    if (password !== 'admin') return problem(response, 401, 'bad-credentials', 'The user name or the password is wrong.')
    response.setHeader('set-cookie', 'fleetwire_session=yes; HttpOnly; SameSite=Strict; Path=/')
    return json(response, 200, { user: { id: me.id, name: username, role: me.role }, csrf: 'mock' })
  }
  if (path === '/login' && method === 'GET') return json(response, 200, { oidc: null })
  if (path === '/login' && method === 'DELETE') {
    response.writeHead(204, { 'set-cookie': 'fleetwire_session=; Max-Age=0; Path=/' }).end()
    return
  }
  if (!signedIn) return problem(response, 401, 'not-signed-in', 'Sign in first.')
  if (path === '/me') return json(response, 200, me)
  if (path === '/enrolment-tokens') return json(response, 201, enrolmentToken())
  if (path === '/audit' || path === '/system/audit') return json(response, 200, { items: narrowed(path === '/audit' ? ofProject : ofSystem, query), next_cursor: null })
  if (path === '/me/totp') return json(response, 200, totp)
  if (lists[path] && method === 'GET') return json(response, 200, { items: lists[path], next_cursor: null })
  if (path === '/system') return json(response, 200, { version: 'mock', time: stamp(Date.now()), nodes: { online: nodes.length, unstable: 0, offline: 0 }, breaker: null })
  if (path === '/nodes') return json(response, 200, { items: nodes, next_cursor: null })
  if (path === '/runs' && method === 'POST') return create(request, response)
  if (path === '/runs') {
    const state = query.get('state')
    return json(response, 200, { items: runs.filter(run => !state || run.state === state).map(({ tasks: _, ...run }) => run), next_cursor: null })
  }
  const [, kind, name = '', rest = ''] = /^\/(nodes|runs|attempts)\/([^/]+)(.*)$/.exec(path) ?? []
  if (kind === 'attempts') return attemptRoute(request, response, name, rest.replace('/log', ''), query)
  if (kind === 'nodes') {
    const node = nodes.find(each => each.id === name)
    if (node && rest === '/events') return json(response, 200, { items: [{ id: 1, at: node.created_at, text: 'is back after 4 s: the network: agent and machine ran on' }], next_cursor: null })
    return node ? json(response, 200, node) : problem(response, 404, 'no-such-node', 'There is no node with this id.')
  }
  const run = runs.find(each => each.id.startsWith(name) && name.length >= 6)
  if (kind !== 'runs' || !run) return problem(response, 404, 'no-such-run', 'There is no run with this id.', { hint: 'fleetwire runs lists those that exist.' })
  if (rest === '/stop') {
    run.wish = 'stop'
    tell(run)
    return json(response, 202, run)
  }
  if (rest === '/why') return json(response, 200, { run: run.id, lines: run.tasks.slice(0, 6).map(task => ({ at: task.started_at, task: task.index, node: task.node, state: task.state, text: task.outcome ? `Ended: ${task.outcome} (${task.reason ?? `exit ${task.exit_code}`}).` : `Running on ${task.node} since its order was taken.` })) })
  if (rest === '/timeline') {
    const told = run.tasks.slice(0, 6).map(task => ({ at: task.started_at ?? run.created_at, kind: 'task', task: task.index, attempt: task.number, node: task.node, text: task.outcome ?? task.state }))
    return json(response, 200, { run: run.id, items: [{ at: run.created_at, kind: 'run', task: null, attempt: null, node: null, text: `submitted by ${run.created_by}` }, ...told], next_cursor: null })
  }
  if (rest === '/events') {
    const send = events(response)
    const all = runWatchers.get(run.id) ?? new Set()
    runWatchers.set(run.id, all.add(send))
    response.on('close', () => all.delete(send))
    return
  }
  json(response, 200, run)
}

async function page(response: ServerResponse, path: string): Promise<void> {
  const asset = extname(path) !== ''
  try {
    const content = await readFile(join(site, asset ? path : 'index.html'))
    response.writeHead(200, {
      'content-type': types[asset ? extname(path) : '.html'] ?? 'application/octet-stream', 'content-security-policy': policy,
      'cache-control': path.startsWith('/assets/') ? 'public, max-age=31536000, immutable' : 'no-cache',
    })
    response.end(content)
  }
  catch {
    response.writeHead(404).end()
  }
}

play(live, 4000)
createServer((request, response) => {
  const { pathname, searchParams } = new URL(request.url ?? '/', 'http://mock')
  const prefix = '/api/v1'
  const done = pathname.startsWith(prefix) ? route(request, response, pathname.slice(prefix.length), searchParams) : page(response, pathname)
  done.catch((error: unknown) => problem(response, 500, 'mock-broke', String(error)))
}).listen(port, '127.0.0.1', () => console.log(`http://127.0.0.1:${port}  admin / admin`))
