import { expect, test } from 'vitest'
import type { Node, Run, ScriptSpec } from '@/api/types'
import { draftOf, fieldOf, labelsOf, newDraft, nodesOf, requestOf } from './draft'

test('exactly one of selector and nodes is asked for', () => {
  const draft = { ...newDraft(), selector: ' os=linux ', nodes: ['left over'], script: 'true', name: ' ' }
  expect(requestOf(draft)).toEqual({ spec: { kind: 'script', script: 'true\n', shell: 'sh', timeout: 7200 }, selector: 'os=linux', nodes: null, any: null, name: null })
  expect(requestOf({ ...newDraft('web-1', 'web'), script: 'true\n', any: 1 })).toMatchObject({ selector: null, nodes: ['web-1'], any: 1, project: 'web' })
})

test('a run comes back as its draft', () => {
  const spec: ScriptSpec = { kind: 'script', script: 'df\n', shell: 'bash', timeout: 60 }
  const run = { selector: 'role=db', nodes: null, any: 2, name: 'Disks', spec, project: 'web' } as Run
  expect(requestOf(draftOf(run, spec))).toEqual({ spec, selector: 'role=db', nodes: null, any: 2, name: 'Disks', project: 'web' })
})

test('a problem finds its field', () => {
  expect(['selector', 'nodes', 'body.nodes.3', 'spec.script', ''].map(fieldOf)).toEqual(['where', 'where', 'where', null, null])
})

test('only nodes of the chosen project are offered', () => {
  const nodes = [{ name: 'a', project: 'web' }, { name: 'b', project: 'default' }] as unknown as Node[]
  expect(nodesOf(nodes, 'web').map(node => node.name)).toEqual(['a'])
  expect(nodesOf(nodes, null)).toEqual(nodes)
})

test('the commonest labels first', () => {
  const nodes = [{ labels: { os: 'linux', role: 'db' } }, { labels: { os: 'linux', canary: '' } }] as unknown as Node[]
  expect(labelsOf(nodes)).toEqual(['os=linux', 'canary', 'role=db'])
})
