import { expect, test } from 'vitest'
import { actions, detailsOf, nameOf, pageOf, viaOf, whereOf } from './entry'

const id = '0190b7f0-1c2d-7abc-8def-0123456789ab'

test('only a run and a node with an id have a page', () => {
  expect([pageOf('run', id), pageOf('node', id)]).toEqual(['run', 'node'])
  expect([pageOf('user', id), pageOf('node', ''), pageOf('run', '../users'), pageOf('run', `${id}/x`)]).toEqual([null, null, null, null])
})

test('names before ids, and ids as people see them', () => {
  expect([nameOf({ id, name: 'web-1' }), nameOf({ id, name: '' }), nameOf({ id: 'key-1', name: '' }), nameOf({ id: '', name: '' })]).toEqual(['web-1', '0190b7f0-1c2d', 'key-1', ''])
})

test('where an entry stands', () => {
  expect([whereOf({ chain: id, project: 'web' }), whereOf({ chain: id, project: null }), whereOf({ chain: 'system', project: null })]).toEqual(['web', '0190b7f0-1c2d', ''])
})

test('what it was done with', () => {
  expect(['cookie', `token:${id}`, 'link', ''].map(viaOf)).toEqual(['cookie', 'token', 'link', ''])
})

test('details by name, with the pages of runs and nodes', () => {
  expect(detailsOf({ run: id, node_id: id, node: 'web-1', attempt: id })).toEqual([
    { name: 'attempt', value: id, id }, { name: 'node', value: 'web-1', id }, { name: 'run', value: id, id },
  ])
  expect(detailsOf({ node: 'web-1', node_id: 'x', run: 'y' })).toEqual([
    { name: 'node', value: 'web-1', id: 'x' }, { name: 'node_id', value: 'x', id: 'x' }, { name: 'run', value: 'y', id: 'y' },
  ])
  expect(detailsOf({ node_id: id })).toEqual([{ name: 'node_id', value: id, id }])
})

test('each group of several actions stands once, before them', () => {
  expect(actions.slice(0, 4)).toEqual(['run.*', 'run.create', 'run.stop', 'node.*'])
  expect(actions).toContain('login')
  expect(actions.filter(action => ['login.*', 'role.*', 'breaker.*'].includes(action))).toEqual([])
  expect(new Set(actions).size).toBe(actions.length)
})
