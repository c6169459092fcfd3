/** What a person reads of an entry of the audit. Pure. */
import type { Action, AuditEntry } from '@/api/types'
import { shortId } from '@/lib/format'

/** A record of all, so that the compiler misses none that the server adds. */
const all: Record<Action, true> = {
  'run.create': true, 'run.stop': true,
  'node.enrol': true, 'node.change': true, 'node.approve': true, 'node.release': true, 'node.delete': true, 'node.quarantine': true, 'node.refuse': true, 'node.foreign-ids': true,
  'enrolment-token.create': true, 'enrolment-token.delete': true,
  'secret.set': true, 'secret.delete': true, 'secret.use': true,
  'role.set': true, 'project.create': true, 'project.delete': true,
  'user.create': true, 'user.change': true, 'user.password': true, 'user.totp-end': true,
  'login': true, 'logout': true, 'session.end': true, 'password.change': true, 'totp.begin': true, 'totp.confirm': true, 'totp.end': true,
  'token.create': true, 'token.delete': true,
  'breaker.close': true, 'server.restore': true, 'server.signing-key': true, 'server.master-key': true, 'server.forget-secrets': true, 'audit.cut': true,
  'read': true,
}

/** What can be asked for: each action, and before it its group, where that has several. */
export const actions: string[] = Object.keys(all).flatMap((action, at, names) => {
  const group = `${action.split('.')[0]}.`
  const several = names.filter(name => name.startsWith(group)).length > 1
  return several && names.findIndex(name => name.startsWith(group)) === at ? [`${group}*`, action] : [action]
})

const isId = (text: string) => /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(text)

/** What has a page of its own: a run or a node, known by its id. */
export function pageOf(kind: string, id: string): 'run' | 'node' | null {
  return (kind === 'run' || kind === 'node') && isId(id) ? kind : null
}

/** A name, else an id as people see it, else nothing. */
export function nameOf({ id, name }: { id: string, name: string }): string {
  return name || (isId(id) ? shortId(id) : id)
}

/** Where it stands: the name of its project, or the id of one that is no more; "" of the whole system. */
export function whereOf({ chain, project }: Pick<AuditEntry, 'chain' | 'project'>): string {
  return project ?? (chain === 'system' ? '' : nameOf({ id: chain, name: '' }))
}

/** By what: the sort of credential. Of a token only that it was one, its id is for the title. */
export function viaOf(via: string): string {
  return via.split(':', 1)[0] ?? ''
}

/** A detail; `id` is what its value is known by, where that is a run or a node. */
export interface Detail { name: string, value: string, id: string }

/** The details by name. The id of a node stands in the link of its name. */
export function detailsOf(detail: Record<string, string>): Detail[] {
  const { node, node_id: nodeId = '' } = detail
  return Object.entries(detail)
    .filter(([name]) => name !== 'node_id' || node === undefined || pageOf('node', nodeId) === null)
    .sort(([a], [b]) => a < b ? -1 : 1)
    .map(([name, value]) => ({ name, value, id: name === 'node' ? nodeId : value }))
}
