import { onScopeDispose, ref, shallowRef, triggerRef } from 'vue'
import { logLines, logTail, Problem, type LogEvent } from '@/api'
import { follow, type Followed } from '@/lib/follow'
import { api } from '@/lib/paths'
import { LogBuffer } from './buffer'

const tail = 500

/**
 * One attempt's log in this tab: its tail, then live from the tail's last line on, and any page of
 * history that comes into view. `buffer` is triggered at most once a frame, however fast bytes come.
 */
export function useLog(attempt: string) {
  const buffer = shallowRef(new LogBuffer())
  const complete = ref(false)
  const loading = ref(true)
  const error = shallowRef<Error | null>(null)
  const leaving = new AbortController()
  let stream: Followed | null = null
  let frame = 0
  let asked = -1

  function changed(): void {
    if (frame !== 0) return
    frame = requestAnimationFrame(() => {
      frame = 0
      triggerRef(buffer)
    })
  }

  function goLive(): void {
    stream = follow({
      url: () => api.logStream(attempt, buffer.value.offset),
      events: {
        log: (data) => {
          buffer.value.push(data as LogEvent)
          changed()
        },
        end: () => {
          complete.value = true
          stream?.close()
          changed()
        },
      },
      onState: () => {},
      onLost: () => { void look() },
    })
  }

  /** Asks at the log's other door, which says why: the app is told by it, and a refusal is for good. */
  async function look(): Promise<void> {
    try {
      await logTail(attempt, 1, leaving.signal)
    }
    catch (problem) {
      if (!(problem instanceof Problem && problem.isRefusal)) return
      stream?.close()
      error.value = problem
    }
  }

  async function open(): Promise<void> {
    loading.value = true
    error.value = null
    try {
      const page = await logTail(attempt, tail, leaving.signal)
      buffer.value.seed(page.lines, page.total_lines)
      complete.value = page.complete
      changed()
      if (!page.complete) goLive()
    }
    catch (problem) {
      if (!leaving.signal.aborted) error.value = problem as Error
    }
    finally {
      loading.value = false
    }
  }

  /** Asks for what is missing of `[first, end)`, one page at a time. */
  async function want(first: number, end: number): Promise<void> {
    buffer.value.touch(first, end)
    const page = buffer.value.missing(first, end)
    if (page === null || asked === page.line) return
    asked = page.line
    try {
      const { lines } = await logLines(attempt, page, leaving.signal)
      buffer.value.put(lines)
      if (lines.length > 0) changed() // nothing there: looking again at once would ask for ever
    }
    catch (problem) {
      if (!leaving.signal.aborted && !(problem instanceof Problem && problem.status === 0)) error.value = problem as Error
    }
    finally {
      asked = -1
    }
  }

  void open()
  onScopeDispose(() => {
    leaving.abort()
    stream?.close()
    cancelAnimationFrame(frame)
  })
  return { buffer, complete, loading, error, open, want }
}
