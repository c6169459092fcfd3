import { effectScope, nextTick, type EffectScope } from 'vue'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { Problem } from '@/api'
import { useRunEvents } from './useRunEvents'

const asked = vi.fn<(id: string) => Promise<unknown>>()
const invalidated = vi.fn(() => Promise.resolve())
vi.mock('@/api', async original => ({ ...await original<object>(), run: (id: string) => asked(id) }))
vi.mock('@tanstack/vue-query', async original => ({
  ...await original<object>(), useQueryClient: () => ({ invalidateQueries: invalidated, setQueryData: () => {} }),
}))

class Refused {
  static CLOSED = 2
  static made = 0
  readyState = 2
  onerror: (() => void) | null = null
  constructor() {
    Refused.made += 1
    queueMicrotask(() => this.onerror?.())
  }

  addEventListener(): void {}
  close(): void {}
}

let scope: EffectScope

beforeEach(() => {
  vi.useFakeTimers()
  vi.stubGlobal('EventSource', Refused)
  vi.stubGlobal('document', Object.assign(new EventTarget(), { hidden: false }))
  Refused.made = 0
  invalidated.mockClear()
})
afterEach(() => {
  scope.stop()
  vi.useRealTimers()
  vi.unstubAllGlobals()
})

async function minutes(): Promise<void> {
  scope = effectScope()
  scope.run(() => useRunEvents(() => 'r1', () => false))
  await nextTick()
  await vi.advanceTimersByTimeAsync(180_000)
}

test.each([403, 404])('what one may not see any more (%i) is not asked for again, and the page is told', async (status) => {
  asked.mockRejectedValue(new Problem({ title: 'no', status } as ConstructorParameters<typeof Problem>[0]))
  await minutes()
  expect(Refused.made).toBe(1)
  expect(invalidated).toHaveBeenCalledOnce()
})

test.each([0, 503])('a server that is away (%i) is asked again', async (status) => {
  asked.mockRejectedValue(new Problem({ title: 'away', status } as ConstructorParameters<typeof Problem>[0]))
  await minutes()
  expect(Refused.made).toBeGreaterThan(5)
})
