import { expect, test } from 'vitest'
import { groups } from './facts'

test('plain facts first, branches as groups, lists of objects as tables, units by name', () => {
  expect(groups({
    memory: { total_bytes: 2 ** 30, percent: 12.345 },
    hostname: 'web-1', uptime_s: 3661, addresses: ['10.0.0.1', '::1'], empty: null,
    disks: [{ mount: '/', free_bytes: 2048 }, { mount: '/var', kind: 'xfs' }],
  })).toEqual([
    { title: '', table: null, rows: [['hostname', 'web-1'], ['uptime', '1 h 01 min'], ['addresses', '10.0.0.1, ::1'], ['empty', '–']] },
    { title: 'memory', table: null, rows: [['total', '1.0 GiB'], ['percent', '12.3 %']] },
    { title: 'disks', rows: [], table: { head: ['mount', 'free', 'kind'], rows: [['/', '2.0 KiB', '–'], ['/var', '–', 'xfs']] } },
  ])
})
