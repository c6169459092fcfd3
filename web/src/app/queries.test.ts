import { expect, test } from 'vitest'
import { Problem } from '@/api'
import { every } from './queries'

const refused = (status: number) => ({ state: { error: new Problem({ title: 'no', status }) } })

test('what one may not see is not asked for again and again', () => {
  expect(every(3000)(refused(403))).toBe(false)
  expect([refused(404), refused(0), refused(503), { state: { error: new Error('odd') } }, { state: { error: null } }].map(every(3000))).toEqual([3000, 3000, 3000, 3000, 3000])
})
