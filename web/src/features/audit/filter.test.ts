import { expect, test } from 'vitest'
import { filterOf, instantOf, isNarrow, localOf, queryOf, scoped, scopeOf } from './filter'

const all = filterOf({})

test('a filter is what its query says, and nothing that is no text', () => {
  const query = { project: 'web', action: 'node.*', actor: 'ci', outcome: 'refused', since: '2030-01-31T12:00:00.000Z', until: '' }
  expect(queryOf(filterOf(query))).toEqual(query)
  expect(filterOf({ project: ['a', 'b'], actor: null, system: 'yes', after: 'c' })).toEqual(all)
  expect(queryOf(filterOf({ system: '1', project: 'web', action: 'login' }))).toEqual({ ...queryOf(all), action: 'login', system: 1 })
})

test('whether something is left out', () => {
  expect([all, filterOf({ project: 'web' }), filterOf({ system: '1' }), filterOf({ actor: 'ci' }), filterOf({ until: 'x' })].map(isNarrow)).toEqual([false, false, false, true, true])
})

test.each(['mine', 'system', 'project:web', 'project:system'] as const)('the choice %s is kept', scope => expect(scopeOf(scoped(filterOf({ project: 'old', system: '1' }), scope), ['web'])).toBe(scope))

test('who may read the audit of no project means the system', () => {
  expect(scopeOf(all, [])).toBe('system')
  expect(scopeOf(filterOf({ project: 'web' }), [])).toBe('project:web')
})

test('a time goes into its field and comes back, to the minute', () => {
  expect(localOf('2030-07-31T09:05:59Z')).toMatch(/^20\d\d-\d\d-\d\dT\d\d:\d\d$/)
  expect(instantOf(localOf('2030-07-31T09:05:59Z'))).toBe('2030-07-31T09:05:00.000Z')
  expect(instantOf('2030-01-31T12:00')).toBe(new Date(2030, 0, 31, 12).toISOString())
  expect([localOf(''), localOf('yesterday'), instantOf('')]).toEqual(['', '', ''])
  expect([instantOf('soon'), instantOf('0202-01-31T12:00')]).toEqual([null, null])
})
