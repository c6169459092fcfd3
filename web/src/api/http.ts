import type { ProblemDocument } from './types'

/** The server said no (RFC 9457), or could not be reached (`status` 0). */
export class Problem extends Error {
  constructor(readonly document: ProblemDocument) {
    super(document.detail ?? document.title)
    this.name = 'Problem'
  }

  get status(): number { return this.document.status }
  /** Not this time only: asked again, the answer would be the same. */
  get isRefusal(): boolean { return this.status === 403 || this.status === 404 }
  get code(): string { return this.document.code ?? '' }
  get field(): string { return this.document.field ?? '' }
  get hint(): string { return this.document.hint ?? '' }
}

let unauthorised: () => void = () => {}
let reached: (answers: boolean) => void = () => {}

/** What to do when the server no longer knows this browser: set once by the app. */
export function onUnauthorised(action: () => void): void {
  unauthorised = action
}

/** Told after each request whether there was a server to answer it: set once by the app. */
export function onReached(action: (answers: boolean) => void): void {
  reached = action
}

async function problemOf(response: Response): Promise<Problem> {
  const fallback: ProblemDocument = { title: response.statusText || `HTTP ${response.status}`, status: response.status }
  if (!(response.headers.get('content-type') ?? '').includes('json')) return new Problem(fallback)
  try {
    return new Problem({ ...fallback, ...(await response.json() as ProblemDocument), status: response.status })
  }
  catch {
    return new Problem(fallback)
  }
}

let csrf: string | null = null

/** The token that goes with our login cookie: every change sends it (docs/seams.md, 4). */
export function keepCsrf(token: string | null): void {
  csrf = token
}

export interface Options { body?: unknown, headers?: Record<string, string>, signal?: AbortSignal, anonymous?: boolean }

/** One request with the login cookie; JSON both ways. Throws `Problem`. */
export async function request<T>(method: string, url: string, options: Options = {}): Promise<T> {
  const headers: Record<string, string> = { accept: 'application/json', ...options.headers }
  if (method !== 'GET' && csrf !== null) headers['x-csrf-token'] = csrf
  const init: RequestInit = { method, headers, credentials: 'same-origin', signal: options.signal ?? null }
  if (options.body !== undefined) {
    headers['content-type'] = 'application/json'
    init.body = JSON.stringify(options.body)
  }
  let response: Response
  try {
    response = await fetch(url, init)
  }
  catch (error) {
    if (options.signal?.aborted) throw error
    reached(false)
    throw new Problem({ title: 'unreachable', status: 0, code: 'unreachable' })
  }
  reached(response.status < 502) // a proxy before a server that is away
  if (!response.ok) {
    const problem = await problemOf(response)
    if (problem.status === 401 && !options.anonymous) unauthorised()
    throw problem
  }
  if (response.status === 204) return undefined as T
  return await response.json() as T
}
