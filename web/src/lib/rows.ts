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

export interface Anchor { row: number, part: number, at: number }

/**
 * For rows of differing heights, of which only those in the view are known: one row is held at one
 * place, the same share down the view as the scroll bar is down the list, so that the first row
 * begins at the top and the last one ends at the bottom. `part` of row `row` lies above `at`.
 */
export function anchor(rows: Rows, scrollTop: number): Anchor {
  const range = canvas(rows) - rows.viewport
  const share = range <= 0 ? 0 : Math.min(1, Math.max(0, scrollTop / range))
  const exact = share * rows.total
  const row = Math.max(0, Math.min(rows.total - 1, Math.floor(exact)))
  return { row, part: exact - row, at: scrollTop + share * rows.viewport }
}

/** The `scrollTop` that makes `row` the anchor. */
export function anchorFor(rows: Rows, row: number): number {
  return Math.max(0, row / Math.max(1, rows.total) * (canvas(rows) - rows.viewport))
}

/** The `scrollTop` that puts `row` a third down the view. */
export function scrollFor(rows: Rows, row: number): number {
  const { height, total, viewport } = rows
  const full = height * total
  if (full <= viewport) return 0
  const at = Math.min(full - viewport, Math.max(0, row * height - viewport / 3))
  return at / (full - viewport) * (canvas(rows) - viewport)
}
