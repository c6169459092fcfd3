import { describe, expect, test } from 'vitest'
import type { LogLine, LogPart, Stream } from '@/api/types'
import { LogBuffer } from './buffer'

type Some = Omit<LogPart, 'offset'>
const part = (data: string | Uint8Array, stream: Stream = 'stdout', time = 't'): Some => {
  const bytes = Buffer.from(data)
  return { stream, time, length: bytes.length, bytes: bytes.toString('base64') }
}
function push(buffer: LogBuffer, offset: number, ...some: Some[]): void {
  let at = offset
  const parts = some.map((each) => {
    at += each.length
    return { ...each, offset: at - each.length }
  })
  buffer.push({ parts })
}
const texts = (buffer: LogBuffer) => Array.from({ length: buffer.total }, (_, n) => buffer.get(n)?.text)
const line = (n: number, offset = n * 10, text = `line ${n}`): LogLine => ({ line: n, offset, stream: 'stdout', time: 't', text, cut: false, gap: 0 })
const history = (first: number, count: number) => Array.from({ length: count }, (_, n) => line(first + n))

describe('live bytes', () => {
  test('lines come together from any cut, a character split in the middle included', () => {
    const whole = Buffer.from('eins\nzwölf 你好\r\nhalb')
    for (let cut = 0; cut <= whole.length; cut += 1) {
      const buffer = new LogBuffer()
      push(buffer, 0, part(whole.subarray(0, cut)))
      push(buffer, cut, part(whole.subarray(cut)))
      expect(texts(buffer)).toEqual(['eins', 'zwölf 你好', 'halb'])
      expect(buffer.offset).toBe(whole.length)
    }
  })

  test('what lies below the own offset is dropped, wholly or in part', () => {
    const buffer = new LogBuffer()
    push(buffer, 0, part('one\ntwo\n'))
    push(buffer, 0, part('one\n'))
    push(buffer, 4, part('two\nthree\n'))
    expect(texts(buffer)).toEqual(['one', 'two', 'three'])
    expect(buffer.get(2)?.offset).toBe(8)
  })

  test('a line knows its first byte\'s stream, time and offset', () => {
    const buffer = new LogBuffer()
    push(buffer, 0, part('out ', 'stdout', '1'), part('err\nbad\n', 'stderr', '2'))
    expect([buffer.get(0), buffer.get(1)]).toEqual([
      { line: 0, offset: 0, stream: 'stdout', time: '1', text: 'out err', cut: false, gap: 0 },
      { line: 1, offset: 8, stream: 'stderr', time: '2', text: 'bad', cut: false, gap: 0 },
    ])
  })

  test('bytes that are no text are replaced, not lost lines', () => {
    const buffer = new LogBuffer()
    push(buffer, 0, part(Uint8Array.of(0x61, 0xff, 0xfe, 10, 0x62, 10)))
    expect(texts(buffer)).toEqual(['a\ufffd\ufffd', 'b'])
  })

  test('a jump forward is counted as dropped by the node and does not stop the log', () => {
    const buffer = new LogBuffer()
    push(buffer, 0, part('a\n'))
    push(buffer, 1002, part('b\n'))
    expect(texts(buffer)).toEqual(['a', 'b'])
    expect(buffer.gaps).toBe(1000)
  })

  test('a gap the node declared is counted once, however often it is told', () => {
    const buffer = new LogBuffer()
    const gap: Some = { stream: 'gap', time: 't', length: 100, bytes: '' }
    push(buffer, 0, part('a\n'), gap, part('b\n'))
    push(buffer, 2, gap, part('b\nc\n'))
    expect(texts(buffer)).toEqual(['a', 'b', 'c'])
    expect([buffer.gaps, buffer.offset]).toEqual([100, 106])
  })

  test('a line of 10 MB keeps 16 KiB and counts the rest', () => {
    const buffer = new LogBuffer()
    const piece = 'x'.repeat(100_000)
    for (let n = 0; n < 100; n += 1) push(buffer, n * 100_000, part(piece))
    expect(buffer.get(0)).toMatchObject({ cut: true })
    push(buffer, 10_000_000, part('\nnext\n'))
    expect(buffer.get(0)?.text.length).toBe(16_384)
    expect(texts(buffer)[1]).toBe('next')
    expect(buffer.get(1)?.offset).toBe(10_000_001)
  })

  test('an empty line is a line; nothing after the last end of line is none', () => {
    const buffer = new LogBuffer()
    push(buffer, 0, part('\n\na\n'))
    expect(texts(buffer)).toEqual(['', '', 'a'])
  })
})

describe('history', () => {
  test('the tail seeds where live goes on: its last line is written again', () => {
    const buffer = new LogBuffer()
    buffer.seed([line(7, 70, 'seven'), line(8, 76, 'ei')], 9)
    expect([buffer.total, buffer.offset, buffer.get(8)?.text]).toEqual([9, 76, 'ei'])
    push(buffer, 76, part('eight\nnine\n'))
    expect([7, 8, 9].map(n => buffer.get(n)?.text)).toEqual(['seven', 'eight', 'nine'])
    expect(buffer.total).toBe(10)
  })

  test('an empty log starts at nothing', () => {
    const buffer = new LogBuffer()
    buffer.seed([], 0)
    expect([buffer.total, buffer.offset]).toEqual([0, 0])
  })

  test('what is missing is asked for in whole pages, the nearest first', () => {
    const buffer = new LogBuffer({ page: 10 })
    buffer.seed(history(95, 5), 100)
    expect(buffer.missing(96, 100)).toBeNull()
    expect(buffer.missing(91, 99)).toEqual({ line: 90, lines: 10 })
    buffer.put(history(90, 3))
    expect(buffer.missing(91, 99)).toEqual({ line: 93, lines: 7 })
    expect(buffer.missing(-5, 12)).toEqual({ line: 0, lines: 10 })
    buffer.put(history(0, 10))
    expect(buffer.missing(0, 12)).toEqual({ line: 10, lines: 10 })
    expect(buffer.missing(99, 140)).toBeNull()
  })

  test('a page of history never writes over live lines', () => {
    const buffer = new LogBuffer({ page: 10 })
    push(buffer, 0, part('live 0\nlive 1\nlive'))
    buffer.put(history(0, 3))
    expect(texts(buffer)).toEqual(['live 0', 'live 1', 'live'])
  })
})

describe('what a tab holds', () => {
  test('a million live lines stay within the cap, the newest are there, the oldest can be asked for', () => {
    const buffer = new LogBuffer()
    let offset = 0
    for (let n = 0; n < 1000; n += 1) {
      const text = Array.from({ length: 1000 }, (_, k) => `line ${n * 1000 + k}\n`).join('')
      push(buffer, offset, part(text))
      offset += text.length
    }
    expect(buffer.total).toBe(1_000_000)
    expect(buffer.statistics().lines).toBeLessThanOrEqual(50_000)
    expect(buffer.get(999_999)?.text).toBe('line 999999')
    expect(buffer.missing(0, 50)).toEqual({ line: 0, lines: 500 })
  })

  test('bytes are capped too', () => {
    const buffer = new LogBuffer({ bytes: 10_000, page: 10 })
    for (let n = 0; n < 100; n += 1) push(buffer, n * 1001, part(`${'x'.repeat(1000)}\n`))
    expect(buffer.statistics().bytes).toBeLessThanOrEqual(10_000 + 10 * 1000)
    expect(buffer.get(99)?.text).toHaveLength(1000)
  })

  test('what is looked at goes last', () => {
    const buffer = new LogBuffer({ lines: 30, page: 10 })
    buffer.seed([line(999)], 1000)
    buffer.put(history(0, 10))
    buffer.put(history(10, 10))
    buffer.touch(0, 10)
    buffer.put(history(20, 10))
    expect([buffer.get(0), buffer.get(10), buffer.get(20), buffer.get(999)].map(Boolean)).toEqual([true, false, true, true])
  })

  test('the accounts are right after eviction', () => {
    const buffer = new LogBuffer({ lines: 20, page: 10 })
    for (let page = 0; page < 9; page += 1) buffer.put(history(page * 10, 10))
    const { pages, lines, bytes } = buffer.statistics()
    expect({ pages, lines }).toEqual({ pages: 2, lines: 20 })
    expect(bytes).toBeGreaterThan(0)
  })
})
