import { ref, watch, computed, type Ref } from 'vue'
import { refDebounced } from '@vueuse/core'
import { logSearch, type LogMatch } from '@/api'

const limit = 500

/** The server searches the whole log; this holds its matches and which one is looked at. `grows` says that more may come. */
export function useSearch(attempt: string, query: Readonly<Ref<string>>, grows: () => boolean) {
  const matches = ref<LogMatch[]>([])
  const at = ref(0)
  const more = ref(false)
  const busy = ref(false)
  const settled = refDebounced(query, 200)
  let running: AbortController | null = null
  let from = 0

  async function ask(q: string): Promise<void> {
    running?.abort()
    const mine = running = new AbortController()
    busy.value = true
    try {
      const found = await logSearch(attempt, { q, from_line: from, limit }, mine.signal)
      matches.value = [...matches.value, ...found.matches]
      more.value = found.next_line !== null
      from = found.next_line ?? (found.matches.at(-1)?.line ?? from - 1) + 1
    }
    catch {
      if (mine.signal.aborted) return
      more.value = false // the log itself says when the server is away
    }
    finally {
      if (running === mine) busy.value = false
    }
  }

  watch(settled, (q) => {
    matches.value = []
    more.value = false
    at.value = from = 0
    running?.abort()
    if (q !== '') void ask(q)
  }, { immediate: true })

  /** One match on or back, round the end; the end of what is known asks for more. */
  async function step(by: 1 | -1): Promise<void> {
    const first = matches.value.length === 0
    if (settled.value !== '' && by === 1 && at.value >= matches.value.length - 1 && (more.value || grows())) await ask(settled.value)
    const n = matches.value.length
    if (n > 0 && !first) at.value = (at.value + by + n) % n
  }

  return { matches, at, more, busy, settled, step, current: computed(() => matches.value[at.value]) }
}
