import { describe, expect, test } from 'vitest'
import { ago, bytes, clock, duration, shortId } from './format'

describe('duration', () => {
  test.each([
    [null, '–'], [0, '0.00 s'], [0.345, '0.34 s'], [9.994, '9.99 s'], [12.34, '12.3 s'], [59.94, '59.9 s'], [59.96, '1 min 00 s'], [60, '1 min 00 s'],
    [3599.6, '1 h 00 min'], [7380, '2 h 03 min'], [100_800, '1 d 4 h'], [-1, '0.00 s'],
  ])('%s', (seconds, text) => expect(duration(seconds)).toBe(text))
})

describe('bytes', () => {
  test.each([
    [0, '0 B'], [1023, '1023 B'], [1024, '1.0 KiB'], [1_048_575, '1.0 MiB'], [104_857_600, '100 MiB'], [3 * 2 ** 30, '3.0 GiB'], [2 ** 60, '1024 PiB'],
  ])('%s', (count, text) => expect(bytes(count)).toBe(text))
})

test('ago says the largest unit, in the past and ahead', () => {
  const now = Date.parse('2026-11-20T12:00:00Z')
  expect(ago('2026-11-20T11:59:59.9Z', now, 'en', 'just now')).toBe('just now')
  expect(ago('2026-11-20T11:59:55Z', now, 'en', '')).toBe('5 sec. ago')
  expect(ago('2026-11-20T10:01:00Z', now, 'en', '')).toBe('1 hr. ago')
  expect(ago('2026-11-18T12:00:00Z', now, 'zh', '')).toBe('2天前')
  expect(ago('2026-11-20T12:00:30Z', now, 'en', '')).toBe('in 30 sec.')
})

test('a clock of nothing is nothing', () => {
  expect(clock('')).toBe('')
  expect(clock('2026-11-20T12:00:00.123456Z')).toMatch(/^\d\d:00:00\.123$/)
})

test('short ids of one minute differ', () => {
  expect(shortId('01930d2c-5a31-7abc-8def-0123456789ab')).not.toBe(shortId('01930d2c-5a32-7abc-8def-0123456789ab'))
})
