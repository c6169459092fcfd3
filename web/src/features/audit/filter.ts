/** Which entries of the audit are asked for: as they stand in the page's URL, in its fields, and for the server. Pure. */

/** "" is any. `isSystem` is the whole system; else it is one project, or all of one's own. Times are RFC 3339. */
export interface Filter { project: string, isSystem: boolean, action: string, actor: string, outcome: string, since: string, until: string }

/** The choice in the field "of": all of one's projects, one of them, or the whole system. */
export type Scope = 'mine' | 'system' | `project:${string}`

const words = ['project', 'action', 'actor', 'outcome', 'since', 'until'] as const

/** Reads the query of the page's URL; whatever is no text there says nothing. */
export function filterOf(query: Record<string, unknown>): Filter {
  const [project, action, actor, outcome, since, until] = words.map(word => typeof query[word] === 'string' ? query[word] : '') as [string, string, string, string, string, string]
  return { project, isSystem: query.system === '1', action, actor, outcome, since, until }
}

/** The same as a query. A project says where already: the system is left out beside it. */
export function queryOf({ isSystem, ...rest }: Filter): Record<(typeof words)[number], string> & { system?: 1 } {
  return isSystem ? { ...rest, project: '', system: 1 } : rest
}

/** Whether it asks for less than all that there is in its scope. */
export function isNarrow({ action, actor, outcome, since, until }: Filter): boolean {
  return [action, actor, outcome, since, until].some(word => word !== '')
}

/** `projects` are those whose audit one may read. Who may in none means the system without saying so. */
export function scopeOf({ isSystem, project }: Filter, projects: string[]): Scope {
  if (isSystem) return 'system'
  if (project !== '') return `project:${project}`
  return projects.length === 0 ? 'system' : 'mine'
}

export function scoped(filter: Filter, scope: Scope): Filter {
  return { ...filter, isSystem: scope === 'system', project: scope.startsWith('project:') ? scope.slice('project:'.length) : '' }
}

/** An instant as a field for local time shows it, to the minute; "" for what is no time. */
export function localOf(instant: string): string {
  const at = new Date(instant)
  if (instant === '' || Number.isNaN(at.getTime())) return ''
  const two = (n: number) => String(n).padStart(2, '0')
  return `${String(at.getFullYear()).padStart(4, '0')}-${two(at.getMonth() + 1)}-${two(at.getDate())}T${two(at.getHours())}:${two(at.getMinutes())}`
}

/** What such a field holds as an instant; null while somebody is typing it (the year 0002 on its way to 2026). */
export function instantOf(local: string): string | null {
  if (local === '') return ''
  const at = new Date(local)
  return at.getTime() >= 0 ? at.toISOString() : null
}
