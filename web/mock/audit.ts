/** What was done in the mock: one entry of each sort, and words of others that try to break the page. */
import type { Action, AuditEntry } from '../src/api/types.ts'
import { id, nodes, runs, stamp } from './data.ts'
import { me } from './people.ts'

const chain = me.projects[0]!.id
const admin: AuditEntry['actor'] = { kind: 'user', id: me.id, name: me.name, via: 'cookie' }
const token: AuditEntry['actor'] = { ...admin, name: 'ci', via: `token:${id()}` }
const server: AuditEntry['actor'] = { kind: 'server', id: '', name: 'root', via: 'shell' }
const stranger: AuditEntry['actor'] = { kind: 'stranger', id: '', name: '', via: '' }
const none: AuditEntry['target'] = { kind: '', id: '', name: '' }
const long = `<img src=x onerror=alert(1)>${'W'.repeat(90)}\u05d0\u05d1\u05d2`
const run = { kind: 'run', id: runs.at(-1)?.id ?? '', name: '' }
const node = { kind: 'node', id: nodes[0]?.id ?? '', name: nodes[0]?.name ?? '' }

function all(of: string, made: [Action, AuditEntry['actor'], AuditEntry['target'], Record<string, string>?, string?][]): AuditEntry[] {
  return made.map(([action, actor, target, detail = {}, code = ''], at) => ({
    number: made.length - at, at: stamp(Date.now() - (at + 1) * 437_000), action, actor, address: actor.kind === 'server' ? '' : at % 3 === 2 ? '2001:db8:85a3:8d3:1319:8a2e:370:7348' : '192.0.2.17',
    target, outcome: code ? 'refused' : 'done', code, detail, chain: of, project: of === 'system' ? null : 'default',
  }))
}

export const ofProject = all(chain, [
  ['run.create', admin, run, { kind: 'script', nodes: '4', selector: 'os=linux' }],
  ['secret.use', { ...token, via: 'run' }, { kind: 'secret', id: '', name: 'registry' }, { run: run.id, node: node.name, node_id: node.id, attempt: id() }],
  ['run.create', { ...token, name: long }, none, { route: 'POST /api/v1/runs', name: long.repeat(4) }, 'forbidden'],
  ['node.quarantine', { ...stranger, kind: 'node', id: node.id, name: node.name, via: 'link' }, node, { why: 'its state directory is a copy' }],
  ['secret.set', admin, { kind: 'secret', id: '', name: long }, { version: '2' }],
  ['role.set', admin, { kind: 'user', id: id(), name: 'ci' }, { roles: 'operator, use-secret', was: 'viewer' }],
])
export const ofSystem = all('system', [
  ['login', stranger, { kind: 'user', id: '', name: 'root' }, { left_out: '12' }, 'bad-credentials'],
  ['login', admin, { kind: 'user', id: me.id, name: me.name }, { by: 'password' }],
  ['server.signing-key', server, { kind: 'key', id: 'k2', name: '' }],
])

export function narrowed(entries: AuditEntry[], query: URLSearchParams): AuditEntry[] {
  const action = query.get('action')?.replace(/\*$/, '') ?? ''
  return entries.filter(entry => entry.action.startsWith(action) && [entry.actor.name, entry.actor.id].includes(query.get('actor') ?? entry.actor.name) && entry.outcome === (query.get('outcome') ?? entry.outcome))
}
