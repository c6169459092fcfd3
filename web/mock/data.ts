/** The mock's fleet and runs: the REST shapes of docs/seams.md 4, made up once at the start. */
import { createHash } from 'node:crypto'
import type { Counts, LogLine, Node, Outcome, Run, Task } from '../src/api/types.ts'

export interface Log { bytes: Buffer, parts: { offset: number, stream: 'stdout' | 'stderr', time: string }[], sealed: boolean }

export const nodes: Node[] = []
export const runs: Run[] = []
export const logs = new Map<string, Log>()

let clock = Date.now() - 3 * 86_400_000
let sequence = 0

export function id(at = Date.now()): string {
  sequence += 1
  const time = at.toString(16).padStart(12, '0')
  const rest = createHash('md5').update(String(sequence)).digest('hex')
  return `${time.slice(0, 8)}-${time.slice(8)}-7${rest.slice(0, 3)}-8${rest.slice(3, 6)}-${rest.slice(6, 18)}`
}

export const stamp = (at: number) => new Date(at).toISOString().replace('Z', '000Z')

export function append(log: Log, text: string, stream: 'stdout' | 'stderr' = 'stdout'): { offset: number, data: Buffer, time: string } {
  const data = Buffer.from(text)
  const offset = log.bytes.length
  const time = stamp(Date.now())
  log.parts.push({ offset, stream, time })
  log.bytes = Buffer.concat([log.bytes, data])
  return { offset, data, time }
}

/** The log as the server pages it: lines count from 1 here only in what people see. */
export function linesOf(log: Log): LogLine[] {
  const lines: LogLine[] = []
  let at = 0
  let part = 0
  while (at < log.bytes.length) {
    const found = log.bytes.indexOf(10, at)
    const end = found < 0 ? log.bytes.length : found
    while (part + 1 < log.parts.length && log.parts[part + 1]!.offset <= at) part += 1
    const { stream, time } = log.parts[part]!
    lines.push({ line: lines.length, offset: at, stream, time, text: log.bytes.subarray(at, Math.min(end, at + 16384)).toString(), cut: end - at > 16384, gap: 0 })
    at = end + 1
  }
  return lines
}

const kinds = ['web', 'web', 'web', 'db', 'db', 'cache', 'build', 'build', 'edge', 'edge', 'gpu', 'batch']
for (const [n, role] of kinds.entries()) {
  clock += 60_000
  nodes.push({
    id: id(clock), project: 'default', name: `${role}-${n + 1}`, link_since: stamp(Date.now() - 600_000), reconnects: n === 5 ? 6 : 0, warnings: n === 5 ? ['its link came back 6 times within 10 min'] : [], link: n === 8 ? 'offline' : n === 5 ? 'unstable' : 'online', admin: n === 7 ? 'draining' : 'active',
    labels: { os: 'linux', role, zone: `eu-${1 + n % 3}`, ...(n % 4 === 0 ? { canary: '' } : {}), ...(role === 'gpu' ? { cuda: '13.1' } : {}) },
    capacity: role === 'gpu' ? 2 : 5, running: [0, 1, 5, 2, 0, 0, 3, 0, 0, 1, 2, 0][n]!, last_seen_at: stamp(Date.now() - (n === 8 ? 7_400_000 : n === 5 ? 21_000 : 900)),
    agent_version: n === 9 ? '0.1.0.dev3' : '0.1.0', address: `10.20.${1 + n % 3}.${11 + n}`, clock_skew: 0.0031 * n, created_at: stamp(clock),
    inventory: n === 11 ? null : {
      hostname: `${role}-${n + 1}.internal`, os: 'Debian GNU/Linux 12 (bookworm)', kernel: '6.1.0-26-amd64', arch: 'x86_64', uptime_s: 86_400 * n + 4000,
      addresses: [`10.20.${1 + n % 3}.${11 + n}`, `fd00::${n}`], load: [0.42, 0.38, 0.5],
      cpu: { model: 'AMD EPYC 9354', count: 16, percent: 12.5 }, memory: { total_bytes: 67_430_000_000, available_bytes: 41_200_000_000 },
      disks: [{ mount: '/', filesystem: 'ext4', total_bytes: 210_000_000_000, free_bytes: 91_000_000_000 }, { mount: '/var/lib', filesystem: 'xfs', total_bytes: 2_100_000_000_000, free_bytes: 1_500_000_000_000 }],
    },
  })
}

export function count(run: Run): void {
  const counts = Object.fromEntries(['total', 'pending', 'assigned', 'running', 'succeeded', 'failed', 'timed_out', 'canceled', 'lost', 'refused', 'expired'].map(key => [key, 0])) as Counts
  for (const task of run.tasks) {
    counts.total += 1
    counts[(task.outcome ?? task.state) as keyof Counts] += 1
  }
  run.counts = counts
}

function task(index: number, node: Node, outcome: Outcome | null, at: number): Task {
  const attempt = id(at + index)
  logs.set(attempt, { bytes: Buffer.alloc(0), parts: [], sealed: outcome !== null })
  const failed = outcome === 'failed'
  return {
    id: id(at + index), index, node: node.name, node_id: node.id, attempt, number: 1, wish: 'run', state: outcome === null ? 'running' : outcome === 'lost' ? 'lost' : outcome === 'refused' ? 'refused' : 'exited', outcome,
    exit_code: outcome === 'succeeded' ? 0 : failed ? 2 : null, signal: outcome === 'timed_out' ? 9 : null, reason: outcome === 'lost' ? 'node rebooted' : outcome === 'timed_out' ? 'deadline of 30 s passed' : null,
    started_at: stamp(at + 120), ended_at: outcome ? stamp(at + 3000 + index * 170) : null, duration: outcome ? 2.88 + index * 0.17 : null,
    log: { length: 0, sha256: null, complete: outcome !== null, state: outcome ? 'sealed' : 'open' }, late_exit: null, earlier: [],
  }
}

export interface Made { name?: string | null, script: string, selector?: string | null, named?: string[] | null, any?: number | null, on: Node[], outcomes: (Outcome | null)[], ago: number, write?: (log: Log, node: Node) => void }

export function make({ name = null, script, selector = 'os=linux', named = null, any = null, on, outcomes, ago, write }: Made): Run {
  const at = Date.now() - ago * 1000
  const tasks = on.map((node, n) => task(n, node, outcomes[n % outcomes.length] ?? null, at))
  for (const [n, each] of tasks.entries()) {
    const log = logs.get(each.attempt)!
    write?.(log, on[n]!)
    each.log.length = log.bytes.length
    if (each.outcome) each.log.sha256 = createHash('sha256').update(log.bytes).digest('hex')
  }
  const live = tasks.some(each => each.outcome === null)
  const worst = tasks.find(each => each.outcome !== 'succeeded')?.outcome ?? 'succeeded'
  const run: Run = {
    id: id(at), project: 'default', name, state: live ? 'running' : 'ended', outcome: live ? null : worst, wish: 'run', created_at: stamp(at), ended_at: live ? null : stamp(at + 3400 + 170 * on.length),
    created_by: 'admin', selector, nodes: named, any, retry: null, lost_after: 86400, spec: { kind: 'script', script, shell: 'sh', timeout: 7200 }, counts: {} as Counts, tasks,
  }
  count(run)
  runs.unshift(run)
  return run
}

const report = (log: Log, node: Node) => {
  append(log, `\x1b[1m== ${node.name} ==\x1b[0m\nkernel   6.1.0-26-amd64\nuptime   ${node.inventory?.uptime_s ?? 0} s\n`)
  append(log, 'warning: 3 packages can be updated\n', 'stderr')
  append(log, '\x1b[32m✓\x1b[0m disk /          57 % used\n\x1b[33m!\x1b[0m disk /var/lib   71 % used\n\x1b[36m→\x1b[0m listening: 22/tcp sshd, 443/tcp nginx\n')
  append(log, 'progress 10 %\rprogress 60 %\rprogress 100 %\n')
}
const many = Array.from({ length: 120 }, (_, n) => nodes[n % nodes.length]!)
make({ script: 'set -eu\napt-get -s upgrade | grep ^Inst\n', on: nodes.slice(0, 8), outcomes: ['succeeded'], ago: 172_000, write: report })
make({ name: 'Nightly backup check', script: 'restic check\n', selector: 'role in (db, cache)', on: nodes.slice(3, 6), outcomes: ['succeeded', 'failed', 'lost'], ago: 90_000, write: report })
make({ script: 'df -h\n', selector: null, named: ['web-1', 'web-2', 'db-4'], on: nodes.slice(0, 3), outcomes: ['succeeded'], ago: 41_000, write: report })
make({ name: 'Warm the build cache', script: 'make -j16 cache\n', selector: 'role=build', any: 1, on: nodes.slice(6, 7), outcomes: ['succeeded'], ago: 9000, write: (log) => {
  append(log, Array.from({ length: 200_000 }, (_, n) => `[${n}/200000] Building object src/module_${n % 977}/part_${n}.o ${'x'.repeat(n % 50)}\n`).join(''))
} })
make({ name: 'Rotate certificates', script: './rotate.sh\n', on: many, outcomes: ['succeeded', 'succeeded', 'succeeded', 'failed', 'succeeded', 'succeeded', 'timed_out', 'succeeded', 'refused'], ago: 1500, write: report })
export const live = make({ name: 'Inventory', script: '#!/bin/sh\nset -eu\n# Facts of this machine\nuname -a\ndf -h\nss -tln\n', on: nodes.slice(0, 4), outcomes: [null, null, 'succeeded', 'failed'], ago: 12, write: report })
