/** What the console asks of the server, one function per request. */
import { api } from '@/lib/paths'
import { keepCsrf, request } from './http'
import type { LoggedIn, LogLines, LogMatches, Me, Ways, NewEnrolmentToken, Node, NodeEvent, Page, Run, RunInList, RunRequest, System, Timeline, TimelineLine, Why } from './types'

export * from './types'
export * from './audit'
export * from './people'
export * from './secrets'
export { onReached, onUnauthorised, Problem } from './http'

type Signal = AbortSignal | undefined

export async function me(signal?: Signal): Promise<Me> {
  const found = await request<Me>('GET', api.me(), { signal, anonymous: true })
  keepCsrf(found.csrf)
  return found
}
export async function signIn(username: string, password: string, code?: string): Promise<void> {
  const body = code ? { username, password, code } : { username, password }
  keepCsrf((await request<LoggedIn>('POST', api.login(), { body, anonymous: true })).csrf)
}
export const ways = (signal?: Signal) => request<Ways>('GET', api.login(), { signal, anonymous: true })
export const signOut = () => request<void>('DELETE', api.login(), { anonymous: true })

/** Without a project the server chooses: the only one, else `default`. */
export const createEnrolmentToken = (project: string | null) =>
  request<NewEnrolmentToken>('POST', api.enrolmentTokens(), { body: project === null ? {} : { project } })

export const node = (id: string, signal?: Signal) => request<Node>('GET', api.node(id), { signal })
export const approveNode = (id: string) => request<Node>('POST', api.nodeApprove(id))
export const releaseNode = (id: string) => request<Node>('POST', api.nodeRelease(id))
/** Its key is refused from then on, whether it has a link or not. */
export const denyNode = (id: string) => request<void>('DELETE', api.nodeDenied(id))
export const removeNode = (id: string) => request<void>('DELETE', api.nodeForced(id))
export const nodeEvents = (id: string, signal?: Signal) => request<Page<NodeEvent>>('GET', api.nodeEvents(id, { limit: 20 }), { signal })
export const system = (signal?: Signal) => request<System>('GET', api.system(), { signal })
export const closeBreaker = () => request<System>('POST', api.closeBreaker())
export const runs = (query: { state?: string, limit?: number, cursor?: string | null }, signal?: Signal) =>
  request<Page<RunInList>>('GET', api.runs(query), { signal })
export const run = (id: string, signal?: Signal) => request<Run>('GET', api.run(id), { signal })
export const why = (id: string, signal?: Signal) => request<Why>('GET', api.runWhy(id), { signal })
export const stopRun = (id: string) => request<Run>('POST', api.runStop(id), { body: {} })
/** The key makes a second press of the button, or a repeat after a lost answer, the same run. */
export const createRun = (body: RunRequest, key: string) =>
  request<Run>('POST', api.runs(), { body, headers: { 'idempotency-key': key } })

export const logLines = (attempt: string, query: { line: number, lines: number }, signal?: Signal) =>
  request<LogLines>('GET', api.logLines(attempt, query), { signal })
export const logTail = (attempt: string, lines: number, signal?: Signal) =>
  request<LogLines>('GET', api.logTail(attempt, lines), { signal })
export const logSearch = (attempt: string, query: { q: string, from_line?: number, limit?: number }, signal?: Signal) =>
  request<LogMatches>('GET', api.logSearch(attempt, query), { signal })

/** A run's timeline from its beginning: its pages, at most `most` lines in one tab. */
export async function timeline(id: string, signal?: Signal, most = 2000): Promise<TimelineLine[]> {
  const all: TimelineLine[] = []
  let cursor: string | null = null
  do {
    const page: Timeline = await request<Timeline>('GET', api.runTimeline(id, { limit: 500, cursor }), { signal })
    all.push(...page.items)
    cursor = page.next_cursor
  } while (cursor !== null && all.length < most)
  return all
}

/** All nodes: the pages of the list, at most `most` of them in one tab. */
export async function nodes(signal?: Signal, most = 5000): Promise<Node[]> {
  const all: Node[] = []
  let cursor: string | null = null
  do {
    const page: Page<Node> = await request<Page<Node>>('GET', api.nodes({ limit: 500, cursor }), { signal })
    all.push(...page.items)
    cursor = page.next_cursor
  } while (cursor !== null && all.length < most)
  return all
}
