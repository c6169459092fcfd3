import { expect, test } from 'vitest'
import { anchor, anchorFor, canvas, scrollFor, shown, tallest } from './rows'

const small = { height: 20, total: 100, viewport: 400 }
const huge = { height: 20, total: 5_000_000, viewport: 400 }

test('the top and the end of a small list', () => {
  expect(shown(small, 0, 0)).toEqual({ first: 0, count: 20, top: 0 })
  expect(shown(small, 1600, 0)).toEqual({ first: 80, count: 20, top: 1600 })
  expect(shown(small, 1610, 0).first).toBe(80)
})

test('a list shorter than the view, and an empty one', () => {
  expect(shown({ ...small, total: 3 }, 0)).toEqual({ first: 0, count: 3, top: 0 })
  expect(shown({ ...small, total: 0 }, 0).count).toBe(0)
})

test('spare rows above are drawn above', () => {
  expect(shown(small, 400, 5)).toEqual({ first: 15, count: 30, top: 300 })
})

test('five million lines: the canvas is capped and both ends are reached', () => {
  expect(canvas(huge)).toBe(tallest)
  expect(shown(huge, 0, 0).first).toBe(0)
  const end = shown(huge, tallest - 400, 0)
  expect(end.first + end.count).toBe(5_000_000)
})

test.each([0, 1, 37, 2_499_999, 4_999_999])('row %i is brought into the view', (row) => {
  const at = shown(huge, scrollFor(huge, row), 0)
  expect(row).toBeGreaterThanOrEqual(at.first)
  expect(row).toBeLessThan(at.first + at.count)
})

test('an anchored list begins at its first row, ends at its last, and agrees with one of equal heights between', () => {
  const rows = { height: 20, total: 1000, viewport: 400 }
  expect(anchor(rows, 0)).toEqual({ row: 0, part: 0, at: 0 })
  expect(anchor(rows, canvas(rows) - 400)).toEqual({ row: 999, part: 1, at: canvas(rows) })
  const { row, part, at } = anchor(rows, 4321)
  expect((row + part) * 20).toBeCloseTo(at, 6)
  expect(anchor(rows, anchorFor(rows, 700)).row).toBe(700)
  expect(anchor({ height: 20, total: 0, viewport: 400 }, 0)).toEqual({ row: 0, part: 0, at: 0 })
})
