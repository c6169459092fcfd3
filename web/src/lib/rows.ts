/**
 * The arithmetic of a virtual list with rows of one height. A browser cannot make an element
 * taller than about 16 million pixels, so past `tallest` the scroll bar is mapped: the whole list
 * stays reachable, however many lines a log has.
 */

export const tallest = 12_000_000

export interface Rows { height: number, total: number, viewport: number }
export interface Shown { first: number, count: number, top: number }

/** The height of the scrolled element. */
export function canvas({ height, total }: Rows): number {
  return Math.min(tallest, height * total)
}

/** Which rows stand in the view at `scrollTop`, and where the first one is drawn. */
export function shown(rows: Rows, scrollTop: number, spare = 8): Shown {
  const { height, total, viewport } = rows
  const full = height * total
  const range = canvas(rows) - viewport
  const at = range <= 0 ? 0 : Math.min(1, Math.max(0, scrollTop / range)) * (full - viewport)
  const first = Math.max(0, Math.floor(at / height) - spare)
  const last = Math.min(total, Math.ceil((at + viewport) / height) + spare)
  return { first, count: Math.max(0, last - first), top: scrollTop + first * height - at }
}

/** The `scrollTop` that puts `row` a third down the view. */
export function scrollFor(rows: Rows, row: number): number {
  const { height, total, viewport } = rows
  const full = height * total
  if (full <= viewport) return 0
  const at = Math.min(full - viewport, Math.max(0, row * height - viewport / 3))
  return at / (full - viewport) * (canvas(rows) - viewport)
}
