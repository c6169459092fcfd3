/**
 * What a tab holds of one attempt's log: a sparse map of pages of lines.
 *
 * History and live are one path (architecture 2, room 12). Pages of lines come from the server by
 * line number; live bytes come with their offset, become lines here and fall into the same pages.
 * The first page asked for is the tail: live then starts at the offset of its last line, which is
 * written again, so that a half line, a lost connection and a server that repeats itself all need
 * no path of their own. What lies below the own offset is dropped.
 *
 * Pure: no clock, no network. Lines count from 0.
 */
import { fromBase64 } from '@/lib/bytes'
import type { LogEvent, LogLine, Stream } from '@/api/types'

export interface Limits { lines: number, bytes: number, page: number, cut: number }

/** A tab holds at most this much; older pages are asked for again. `cut` is the server's, bytes a line. */
export const limits: Limits = { lines: 50_000, bytes: 16 << 20, page: 500, cut: 16 << 10 }

interface Page { lines: (LogLine | undefined)[], filled: number, bytes: number, used: number }

export interface Statistics { pages: number, lines: number, bytes: number }

const newline = 10

/** Bytes of the one line that has no end yet; those past the cut are counted, not kept. */
class OpenLine {
  bytes: Uint8Array
  kept = 0
  length = 0
  offset = 0
  stream: Stream = 'stdout'
  time = ''

  constructor(private readonly cut: number) {
    this.bytes = new Uint8Array(256)
  }

  take(part: Uint8Array): void {
    const room = Math.min(part.length, this.cut - this.kept)
    if (this.kept + room > this.bytes.length) {
      const grown = new Uint8Array(Math.min(this.cut, Math.max(this.kept + room, this.bytes.length * 2)))
      grown.set(this.bytes.subarray(0, this.kept))
      this.bytes = grown
    }
    this.bytes.set(part.subarray(0, room), this.kept)
    this.kept += room
    this.length += part.length
  }
}

export class LogBuffer {
  /** Log bytes below this have been taken: where live goes on. */
  offset = 0
  /** Bytes the node dropped because the spool was full (`quota_policy: drop`), as far as this tab saw. */
  gaps = 0

  #pages = new Map<number, Page>()
  #known = 0
  #line = 0
  #open: OpenLine
  #lines = 0
  #bytes = 0
  #uses = 0
  readonly #limits: Limits
  readonly #decoder = new TextDecoder()

  constructor(custom: Partial<Limits> = {}) {
    this.#limits = { ...limits, ...custom }
    this.#open = new OpenLine(this.#limits.cut)
  }

  /** Lines of the log, the unfinished one included. */
  get total(): number {
    return Math.max(this.#known, this.#line + (this.#open.length > 0 ? 1 : 0))
  }

  statistics(): Statistics {
    return { pages: this.#pages.size, lines: this.#lines, bytes: this.#bytes }
  }

  /** The tail of the log at the start: sets where live begins. Only for an empty buffer. */
  seed(lines: LogLine[], total: number): void {
    const last = lines.at(-1)
    if (last === undefined) return
    this.put(lines)
    this.#known = Math.max(total, last.line + 1)
    this.#line = last.line
    this.offset = last.offset
  }

  /** A page of history. Lines that live bytes have written stay as they are. */
  put(lines: LogLine[]): void {
    for (const line of lines) {
      if (this.get(line.line) === undefined) this.#store(line)
    }
    this.#evict()
  }

  /** Live bytes. What was taken before is dropped; a gap, declared or seen as a jump, is counted. */
  push(event: Pick<LogEvent, 'parts'>): void {
    for (const { offset, stream, time, length, bytes } of event.parts) {
      const end = offset + length
      if (end <= this.offset) continue
      const dropped = stream === 'gap' ? end : offset
      if (dropped > this.offset) {
        this.gaps += dropped - this.offset
        this.offset = dropped
      }
      if (stream !== 'gap') this.#take(fromBase64(bytes).subarray(this.offset - offset), stream, time)
    }
    this.#evict()
  }

  get(line: number): LogLine | undefined {
    if (line === this.#line && this.#open.length > 0) return this.#finish()
    return this.#pages.get(this.#pageOf(line))?.lines[line % this.#limits.page]
  }

  /** Says that these lines are looked at: their pages are evicted last. */
  touch(first: number, end: number): void {
    for (let page = this.#pageOf(first); page <= this.#pageOf(Math.max(first, end - 1)); page += 1) {
      const held = this.#pages.get(page)
      if (held) held.used = ++this.#uses
    }
  }

  /**
   * What to ask the server for so that `[first, end)` can be shown, or null: the rest of a page from
   * its first hole on. An answer may be shorter (the server caps its size); asking again goes on behind it.
   */
  missing(first: number, end: number): { line: number, lines: number } | null {
    const size = this.#limits.page
    for (let line = Math.max(0, first); line < Math.min(end, this.total); line += 1) {
      if (this.get(line) !== undefined) continue
      const start = this.#pageOf(line) * size
      let hole = start
      while (this.get(hole) !== undefined) hole += 1
      return { line: hole, lines: start + size - hole }
    }
    return null
  }

  #pageOf(line: number): number {
    return Math.floor(line / this.#limits.page)
  }

  #take(data: Uint8Array, stream: Stream, time: string): void {
    let from = 0
    while (from < data.length) {
      const found = data.indexOf(newline, from)
      const to = found < 0 ? data.length : found
      if (this.#open.length === 0) {
        this.#open.offset = this.offset + from
        this.#open.stream = stream
        this.#open.time = time
      }
      this.#open.take(data.subarray(from, found < 0 ? to : to + 1))
      if (found < 0) break
      this.#store(this.#finish())
      this.#open.kept = this.#open.length = 0
      this.#line += 1
      from = found + 1
    }
    this.offset += data.length
  }

  /** The open line as it reads now; without its end of line. */
  #finish(): LogLine {
    const { bytes, kept, length, offset, stream, time } = this.#open
    let end = kept
    if (length === kept && end > 0 && bytes[end - 1] === newline) end -= 1
    if (length === kept && end > 0 && bytes[end - 1] === 13) end -= 1
    return { line: this.#line, offset, stream, time, text: this.#decoder.decode(bytes.subarray(0, end)), cut: length > kept, gap: 0 }
  }

  #store(line: LogLine): void {
    const number = this.#pageOf(line.line)
    let page = this.#pages.get(number)
    if (page === undefined) {
      page = { lines: Array.from({ length: this.#limits.page }), filled: 0, bytes: 0, used: ++this.#uses }
      this.#pages.set(number, page)
    }
    const slot = line.line % this.#limits.page
    const old = page.lines[slot]
    const size = line.text.length - (old?.text.length ?? 0)
    page.lines[slot] = line
    page.filled += old ? 0 : 1
    this.#lines += old ? 0 : 1
    page.bytes += size
    this.#bytes += size
  }

  #evict(): void {
    const tail = this.#pageOf(this.#line)
    while (this.#lines > this.#limits.lines || this.#bytes > this.#limits.bytes) {
      let oldest: number | undefined
      let used = Infinity
      for (const [number, page] of this.#pages) {
        if (number !== tail && page.used < used) [oldest, used] = [number, page.used]
      }
      if (oldest === undefined) return
      const page = this.#pages.get(oldest) as Page
      this.#lines -= page.filled
      this.#bytes -= page.bytes
      this.#pages.delete(oldest)
    }
  }
}
