/** What was done, by whom: of projects, or of the whole system. */
import { api } from '@/lib/paths'
import { request } from './http'
import type { AuditEntry, Page } from './types'

export interface AuditQuery { project: string, system?: 1, action: string, actor: string, outcome: string, since: string, until: string, cursor: string }

export function audit({ system, project, ...rest }: AuditQuery, signal?: AbortSignal): Promise<Page<AuditEntry>> {
  const asked = { ...rest, limit: 50 }
  return request<Page<AuditEntry>>('GET', system ? api.systemAudit(asked) : api.audit({ project, ...asked }), { signal })
}
