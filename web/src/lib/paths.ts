/**
 * Every URL the console knows, pages and API. Nothing else builds one: `house.test.ts` looks for
 * strays and `paths.test.ts` keeps a snapshot of all (style.md 29).
 */

type Query = Record<string, string | number | boolean | null | undefined>

function url(path: string, query: Query = {}): string {
  const search = new URLSearchParams()
  for (const [key, value] of Object.entries(query)) {
    if (value !== null && value !== undefined && value !== '') search.set(key, String(value))
  }
  const text = search.toString()
  return text === '' ? path : `${path}?${text}`
}

const part = encodeURIComponent

/** Entries of the audit: times are RFC 3339, `action` may be a group such as `node.*`. */
interface Entries extends Query { action?: string, actor?: string, outcome?: string, since?: string, until?: string }
interface AuditList extends Entries { limit?: number, cursor?: string }
/** `system` is the whole system, without it and `project` all of one's own projects. */
interface AuditPage extends Entries { project?: string, system?: 1, after?: string }

/** Patterns for the router. */
export const patterns = {
  home: '/',
  signIn: '/sign-in',
  nodes: '/nodes',
  node: '/nodes/:id',
  runs: '/runs',
  newRun: '/runs/new',
  run: '/runs/:id',
  account: '/account',
  users: '/users',
  projects: '/projects',
  project: '/projects/:name',
  secrets: '/secrets',
  audit: '/audit',
  lost: '/:rest(.*)*',
} as const

/** The console's own pages. Every state a person can be in has a URL. */
export const pages = {
  home: () => url(patterns.home),
  signIn: (query: { to?: string } = {}) => url(patterns.signIn, query),
  nodes: (query: { q?: string } = {}) => url(patterns.nodes, query),
  node: (id: string) => url(`/nodes/${part(id)}`),
  runs: (query: { state?: string, after?: string } = {}) => url(patterns.runs, query),
  newRun: (query: { node?: string, project?: string, from?: string } = {}) => url(patterns.newRun, query),
  account: () => url(patterns.account),
  users: () => url(patterns.users),
  projects: () => url(patterns.projects),
  project: (name: string) => url(`/projects/${part(name)}`),
  secrets: () => url(patterns.secrets),
  audit: (query: AuditPage = {}) => url(patterns.audit, query),
  run: (id: string, query: { task?: number, q?: string } = {}) => url(`/runs/${part(id)}`, query),
} as const

const base = '/api/v1'
const attempt = (id: string) => `${base}/attempts/${part(id)}/log`

/** The server's REST API (docs/seams.md section 4). */
export const api = {
  login: () => url(`${base}/login`),
  oidc: () => url(`${base}/login/oidc`),
  me: () => url(`${base}/me`),
  ownPassword: () => url(`${base}/me/password`),
  ownSessions: () => url(`${base}/me/sessions`),
  ownSession: (id: string) => url(`${base}/me/sessions/${part(id)}`),
  ownTotp: () => url(`${base}/me/totp`),
  confirmTotp: () => url(`${base}/me/totp/confirm`),
  endTotp: () => url(`${base}/me/totp/end`),
  tokens: (query: { limit?: number } = {}) => url(`${base}/tokens`, query),
  token: (id: string) => url(`${base}/tokens/${part(id)}`),
  users: (query: { limit?: number } = {}) => url(`${base}/users`, query),
  user: (name: string) => url(`${base}/users/${part(name)}`),
  userPassword: (name: string) => url(`${base}/users/${part(name)}/password`),
  projects: (query: { limit?: number } = {}) => url(`${base}/projects`, query),
  members: (project: string) => url(`${base}/projects/${part(project)}/members`),
  member: (project: string, user: string) => url(`${base}/projects/${part(project)}/members/${part(user)}`),
  secrets: (query: { limit?: number } = {}) => url(`${base}/secrets`, query),
  secret: (name: string, query: { project?: string } = {}) => url(`${base}/secrets/${part(name)}`, query),
  audit: (query: AuditList & { project?: string } = {}) => url(`${base}/audit`, query),
  systemAudit: (query: AuditList = {}) => url(`${base}/system/audit`, query),
  enrolmentTokens: () => url(`${base}/enrolment-tokens`),
  nodes: (query: { limit?: number, cursor?: string | null } = {}) => url(`${base}/nodes`, query),
  node: (id: string) => url(`${base}/nodes/${part(id)}`),
  nodeForced: (id: string) => url(`${base}/nodes/${part(id)}`, { force: 1 }),
  nodeDenied: (id: string) => url(`${base}/nodes/${part(id)}`, { force: 1, only: 'waiting' }),
  nodeApprove: (id: string) => url(`${base}/nodes/${part(id)}/approve`),
  nodeRelease: (id: string) => url(`${base}/nodes/${part(id)}/release`),
  nodeEvents: (id: string, query: { limit?: number } = {}) => url(`${base}/nodes/${part(id)}/events`, query),
  system: () => url(`${base}/system`),
  closeBreaker: () => url(`${base}/system/close-breaker`),
  runs: (query: { state?: string, limit?: number, cursor?: string | null } = {}) => url(`${base}/runs`, query),
  run: (id: string) => url(`${base}/runs/${part(id)}`),
  runStop: (id: string) => url(`${base}/runs/${part(id)}/stop`),
  runWhy: (id: string) => url(`${base}/runs/${part(id)}/why`),
  runTimeline: (id: string, query: { limit?: number, cursor?: string | null } = {}) => url(`${base}/runs/${part(id)}/timeline`, query),
  runEvents: (id: string) => url(`${base}/runs/${part(id)}/events`, { logs: 0 }),
  logLines: (id: string, query: { line: number, lines: number }) => url(attempt(id), query),
  logTail: (id: string, tail: number) => url(attempt(id), { tail }),
  logSearch: (id: string, query: { q: string, from_line?: number, limit?: number }) => url(`${attempt(id)}/search`, query),
  logStream: (id: string, offset: number) => url(`${attempt(id)}/stream`, { offset }),
  logRaw: (id: string) => url(`${attempt(id)}/raw`),
} as const
