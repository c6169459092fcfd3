/** Secrets: set, listed and deleted. No route gives a value. */
import { api } from '@/lib/paths'
import { request } from './http'
import type { Page, Secret } from './types'

type Signal = AbortSignal | undefined

export const secrets = (signal?: Signal) => request<Page<Secret>>('GET', api.secrets({ limit: 500 }), { signal })
export const setSecret = (name: string, value: string, project?: string) => request<Secret>('PUT', api.secret(name), { body: { value, project } })
export const deleteSecret = (name: string, project: string) => request<void>('DELETE', api.secret(name, { project }))
