/**
 * The shapes of the REST API under the names the console uses. They are generated in the build from
 * `openapi/fleetwire.json`; what that document leaves open (a run's spec and counts, events) is
 * said here, by docs/seams.md section 4. Times are RFC 3339 UTC, durations seconds, sizes bytes.
 */
import type * as api from './generated/types.gen'

export type { AuditEntry, LoggedIn, Member, NewToken, NewTotp, NewUser, Project, Secret, Session, Token, Totp, UserInList, Ways } from './generated/types.gen'
export type { LogLine, LogLines, LogMatch, LogMatches, Me, NewEnrolmentToken, Node, NodeEvent, System, Timeline, TimelineLine, Why, WhyLine } from './generated/types.gen'

export interface Page<T> { items: T[], next_cursor: string | null }

/** What somebody may be given in a project: a role or a grant. */
export type Role = api.Member['roles'][number]
/** What can be done, as the audit names it. */
export type Action = api.AuditEntry['action']
export type Link = api.Node['link']
export type Task = api.Task
export type TaskState = Task['state']
export type Outcome = NonNullable<Task['outcome']>

export type ScriptSpec = api.ScriptParams
export type Shell = NonNullable<ScriptSpec['shell']>
export interface OtherSpec { kind: 'ping' | 'scripted', timeout?: number, [more: string]: unknown }
export type Spec = ScriptSpec | OtherSpec
export type Counts = Record<'total' | 'pending' | 'assigned' | 'running' | Outcome, number>

export type RunInList = Omit<api.RunInList, 'spec' | 'counts'> & { spec: Spec, counts: Counts }
export type Run = RunInList & { tasks: Task[] }
export type RunRequest = Omit<api.RunParams, 'spec' | 'queue_timeout'> & { spec: ScriptSpec }

/** Log bytes in base64; of a gap only their number. */
export type LogPart = api.Part
export type Stream = LogPart['stream']
export interface LogEvent { attempt: string, offset: number, parts: LogPart[] }

/** RFC 9457; `code` is stable, `field` the offending one, `hint` says what to do. */
export interface ProblemDocument { type?: string, title: string, status: number, detail?: string, code?: string, field?: string | null, hint?: string | null }
