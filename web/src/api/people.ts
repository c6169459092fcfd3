/** One's own account, and users and projects. */
import { api } from '@/lib/paths'
import { request } from './http'
import type { Member, NewToken, NewTotp, NewUser, Page, Project, Role, Session, Token, Totp, UserInList } from './types'

type Signal = AbortSignal | undefined

export const changePassword = (old: string, fresh: string) => request<void>('POST', api.ownPassword(), { body: { old, new: fresh } })
export const sessions = (signal?: Signal) => request<Page<Session>>('GET', api.ownSessions(), { signal })
export const endSession = (id: string) => request<void>('DELETE', api.ownSession(id))
export const totp = (signal?: Signal) => request<Totp>('GET', api.ownTotp(), { signal })
export const beginTotp = (password: string) => request<NewTotp>('POST', api.ownTotp(), { body: { password } })
export const confirmTotp = (code: string) => request<{ recovery_codes: string[] }>('POST', api.confirmTotp(), { body: { code } })
export const endTotp = (code: string) => request<void>('POST', api.endTotp(), { body: { code } })

export const tokens = (signal?: Signal) => request<Page<Token>>('GET', api.tokens({ limit: 500 }), { signal })
export const createToken = (name: string) => request<NewToken>('POST', api.tokens(), { body: { name } })
export const deleteToken = (id: string) => request<void>('DELETE', api.token(id))

export const users = (signal?: Signal) => request<Page<UserInList>>('GET', api.users({ limit: 500 }), { signal })
export const createUser = (name: string) => request<NewUser>('POST', api.users(), { body: { name } })
export const setDisabled = (name: string, disabled: boolean) => request<UserInList>('PATCH', api.user(name), { body: { disabled } })
export const resetPassword = (name: string) => request<NewUser>('POST', api.userPassword(name), { body: {} })

export const projects = (signal?: Signal) => request<Page<Project>>('GET', api.projects({ limit: 500 }), { signal })
export const createProject = (name: string) => request<Project>('POST', api.projects(), { body: { name } })
export const members = (project: string, signal?: Signal) => request<Page<Member>>('GET', api.members(project), { signal })
export const setRoles = (project: string, user: string, roles: Role[], was: Role[]) =>
  request<Member>('PUT', api.member(project, user), { body: { roles, was } })
