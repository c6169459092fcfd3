/** The mock's one person, who may everything in its one project, and what their pages list. */
import type { Me, Member, NewEnrolmentToken, Project, Secret, Session, Totp, UserInList } from '../src/api/types.ts'
import { id, stamp } from './data.ts'

const began = stamp(Date.now() - 90 * 86_400_000)
const project: Project = {
  id: id(), name: 'default', created_at: began, roles: ['project-admin', 'auditor'],
  permissions: ['read', 'read-logs', 'run', 'stop', 'drain', 'manage-nodes', 'manage-enrolment', 'manage-jobs', 'manage-secrets', 'manage-roles', 'read-audit'],
}
export const me: Me = {
  id: id(), name: 'admin', role: 'admin', via: 'cookie', csrf: 'mock', projects: [project],
  permissions: ['manage-users', 'manage-projects', 'manage-system', 'read-system-audit'],
}

export function enrolmentToken(): NewEnrolmentToken {
  const token = 'fw_enrol_7Qm2dEXAMPLEONLYx4'
  return {
    id: id(), token, labels: {}, name: null, network: null, approval: false, project: project.name, created_by: me.name, created_at: stamp(Date.now()),
    expires_at: stamp(Date.now() + 3_600_000), used_at: null, used_by: null, ca_fingerprint: null, command: `fleetwire agent --server http://127.0.0.1:8090 --token ${token}`,
  }
}

const user: UserInList = { id: me.id, name: me.name, role: me.role, disabled: false, created_at: began, has_password: true, totp: false }
const member: Member = { user_id: me.id, user: me.name, project_id: project.id, project: project.name, roles: project.roles }
const secret: Secret = { name: 'registry', project: project.name, version: 2, created_at: began, updated_at: began, updated_by: me.name, last_used_at: null }
const session: Session = { id: id(), created_at: began, expires_at: stamp(Date.now() + 86_400_000), address: '127.0.0.1', browser: 'Chromium on Linux', current: true }

/** Lists by their path; each is one page. */
export const lists: Record<string, unknown[]> = {
  '/projects': [project], '/projects/default/members': [member], '/users': [user], '/secrets': [secret], '/me/sessions': [session], '/tokens': [],
}
export const totp: Totp = { on: false, recovery_codes: 0 }
