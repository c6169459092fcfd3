import { useQueryClient } from '@tanstack/vue-query'
import { onScopeDispose, ref, watch, type Ref } from 'vue'
import { Problem, run as askRun, type Run, type RunInList, type Task } from '@/api'
import { follow, type Followed, type FollowState } from '@/lib/follow'
import { api } from '@/lib/paths'
import { runKey } from './queries'
import { withRun, withTask } from './status'

/** Keeps the run's query true by the server's events until their `end`. Returns how the stream stands. */
export function useRunEvents(id: () => string, ended: () => boolean | undefined): Ref<FollowState> {
  const queries = useQueryClient()
  const state = ref<FollowState>('closed')
  let stream: Followed | null = null

  function change(run: string, next: (old: Run) => Run): void {
    queries.setQueryData(runKey(run), (old: Run | undefined) => old && next(old))
  }

  function start(run: string): void {
    const again = () => { void queries.invalidateQueries({ queryKey: runKey(run) }) }
    const mine = stream = follow({
      url: () => api.runEvents(run),
      events: {
        run: data => change(run, old => withRun(old, data as RunInList)),
        task: data => change(run, old => withTask(old, data as Task)),
        end: () => {
          stop()
          again() // the last word is the record, not the events
        },
      },
      onState: (now, before) => {
        state.value = now
        if (now === 'open' && before) again()
      },
      onLost: () => { void look(run, () => mine.close(), again) },
    })
  }

  /** Asks for the run itself, which says why: the app is told by it, and a refusal is for good. */
  async function look(run: string, close: () => void, again: () => void): Promise<void> {
    try {
      await askRun(run)
    }
    catch (problem) {
      if (problem instanceof Problem && problem.isRefusal) close()
      again()
    }
  }

  function stop(): void {
    stream?.close()
    stream = null
  }

  // Begun once, when the run is known and has not ended; only its `end` event ends it. The `run` event that
  // says "ended" may come before the last words of the tasks.
  watch([id, () => ended() !== undefined], ([run, known]) => {
    stop()
    if (known && ended() === false) start(run)
  }, { immediate: true })
  onScopeDispose(stop)
  return state
}
