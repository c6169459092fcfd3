import { expect, test } from 'vitest'
import { safeReturn } from './safeReturn'

test.each([
  ['/runs/1?task=2', '/runs/1?task=2'], ['//evil.example', '/'], ['/\\evil.example', '/'], ['https://evil.example', '/'], ['javascript:alert(1)', '/'], [undefined, '/'], [['/a'], '/'],
])('%s', (to, path) => expect(safeReturn(to, '/')).toBe(path))
