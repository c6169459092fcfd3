import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { follow, pause, type Followed, type FollowState } from './follow'

class FakeSource extends EventTarget {
  static CLOSED = 2
  static made: FakeSource[] = []
  readyState = 0
  onopen: (() => void) | null = null
  onerror: (() => void) | null = null
  constructor(readonly url: string) {
    super()
    FakeSource.made.push(this)
  }

  close(): void { this.readyState = 2 }
  accept(): void { this.readyState = 1; this.onopen?.() }
  refuse(): void { this.readyState = 2; this.onerror?.() }
  say(name: string, data: unknown): void { this.dispatchEvent(Object.assign(new Event(name), { data: JSON.stringify(data) })) }
}

const page = Object.assign(new EventTarget(), { hidden: false })
let followed: Followed
let states: string[]
let got: unknown[]
let offset: number

beforeEach(() => {
  vi.useFakeTimers()
  vi.stubGlobal('EventSource', FakeSource)
  vi.stubGlobal('document', page)
  page.hidden = false
  FakeSource.made = []
  states = []
  got = []
  offset = 0
  followed = follow({
    url: () => `/stream?offset=${offset}`,
    events: { log: data => got.push(data) },
    onState: (state: FollowState, again) => states.push(again ? `${state} again` : state),
  })
})
afterEach(() => {
  followed.close()
  vi.useRealTimers()
  vi.unstubAllGlobals()
})

test('events arrive as data', () => {
  FakeSource.made[0]!.accept()
  FakeSource.made[0]!.say('log', { offset: 3 })
  expect(got).toEqual([{ offset: 3 }])
  expect(states).toEqual(['connecting', 'open'])
})

test('a refused stream is opened again after a pause, at the offset reached by then', () => {
  FakeSource.made[0]!.accept()
  offset = 42
  FakeSource.made[0]!.refuse()
  expect(states.at(-1)).toBe('waiting again')
  vi.advanceTimersByTime(500)
  expect(FakeSource.made.map(source => source.url)).toEqual(['/stream?offset=0', '/stream?offset=42'])
  FakeSource.made[1]!.accept()
  expect(states.at(-1)).toBe('open again')
})

test('a hidden tab holds no connection and comes back when it is looked at', () => {
  page.hidden = true
  page.dispatchEvent(new Event('visibilitychange'))
  expect(FakeSource.made[0]!.readyState).toBe(2)
  page.hidden = false
  page.dispatchEvent(new Event('visibilitychange'))
  expect(FakeSource.made).toHaveLength(2)
})

test('after close nothing comes back', () => {
  FakeSource.made[0]!.refuse()
  followed.close()
  vi.advanceTimersByTime(60_000)
  page.dispatchEvent(new Event('visibilitychange'))
  expect(FakeSource.made).toHaveLength(1)
})

test('pauses grow to a quarter of a minute and are jittered', () => {
  expect([0, 1, 2, 5, 30].map(n => pause(n, 0))).toEqual([500, 1000, 2000, 15_000, 15_000])
  expect(pause(0, 0.999)).toBeGreaterThan(249)
})
