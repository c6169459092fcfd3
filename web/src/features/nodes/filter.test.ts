import { expect, test } from 'vitest'
import type { Node } from '@/api/types'
import { filterNodes } from './filter'

const node = (name: string, link: Node['link'], labels: Record<string, string> = {}) => ({ name, link, labels, admin: 'active', address: null }) as Node
const fleet = [node('web-10', 'online', { os: 'linux' }), node('web-2', 'online', { os: 'windows' }), node('db-1', 'offline', { os: 'linux' }), node('db-2', 'unstable')]
const names = (text: string) => filterNodes(fleet, text).map(each => each.name)

test('trouble first, then by name with numbers as numbers', () => expect(names('')).toEqual(['db-1', 'db-2', 'web-2', 'web-10']))
test('every word counts: name, link, labels', () => {
  expect(names('OS=Linux')).toEqual(['db-1', 'web-10'])
  expect(names('db off')).toEqual(['db-1'])
  expect(names('db windows')).toEqual([])
})
