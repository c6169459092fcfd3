import { expect, test } from 'vitest'
import type { Counts, Run, Spec, Task } from '@/api/types'
import { ended, firstTask, headline, runStatus, taskStatus, withRun, withTask } from './status'

const task = (index: number, state: Task['state'], outcome: Task['outcome'] = null) => ({ id: String(index), index, state, outcome }) as Task
const script = (text: string): Spec => ({ kind: 'script', script: text, shell: 'sh' })

test('a run reads as its outcome, its wish to stop, else its state', () => {
  expect(runStatus({ state: 'ended', outcome: 'lost', wish: 'stop' })).toBe('lost')
  expect(runStatus({ state: 'running', outcome: null, wish: 'stop' })).toBe('stopping')
  expect(runStatus({ state: 'pending', outcome: null, wish: 'run' })).toBe('pending')
})

test('an exit whose log is not sealed still runs', () => {
  expect(taskStatus(task(0, 'exited'))).toBe('running')
  expect(taskStatus(task(0, 'exited', 'failed'))).toBe('failed')
})

test('the headline is the name, else the first line that does something', () => {
  expect(headline({ name: 'Backup', spec: script('x') })).toBe('Backup')
  expect(headline({ name: null, spec: script('#!/bin/sh\n# why\nset -eu\n\n  df -h\nls') })).toBe('df -h')
  expect(headline({ name: null, spec: script('#!/bin/sh') })).toBe('#!/bin/sh')
  expect(headline({ name: null, spec: { kind: 'ping' } })).toBe('ping')
})

test('events change a run and leave the rest', () => {
  const old = { id: 'r', state: 'running', tasks: [task(0, 'running'), task(1, 'pending')] } as Run
  const next = withTask(withRun(old, { ...old, state: 'ended', tasks: undefined } as never), task(1, 'exited', 'succeeded'))
  expect([next.state, next.tasks.length, next.tasks[1]?.outcome, old.tasks[1]?.outcome]).toEqual(['ended', 2, 'succeeded', null])
  expect(withTask(old, task(2, 'pending')).tasks).toHaveLength(3)
})

test('the first task to look at runs, else went wrong', () => {
  const fine = task(0, 'exited', 'succeeded')
  expect(firstTask([fine, task(1, 'exited', 'failed'), task(2, 'running')])?.index).toBe(2)
  expect(firstTask([fine, task(1, 'lost', 'lost'), task(2, 'exited', 'timed_out')])?.index).toBe(2)
  expect(firstTask([fine, task(1, 'lost', 'lost')])?.index).toBe(1)
  expect(firstTask([fine])?.index).toBe(0)
  expect(firstTask([])).toBeUndefined()
})

test('ended is all that needs nothing more', () => {
  expect(ended({ total: 10, pending: 1, assigned: 2, running: 3 } as Counts)).toBe(4)
})
