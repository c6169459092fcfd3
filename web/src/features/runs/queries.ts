import { useMutation, useQuery, useQueryClient } from '@tanstack/vue-query'
import { computed, toValue, type MaybeRefOrGetter } from 'vue'
import { createRun, run, runs, stopRun, timeline, why, type Run, type RunRequest } from '@/api'
import { every } from '@/app/queries'
import { unsettled } from './status'

export const runKey = (id: string) => ['run', id] as const

/** A page of the runs, newest first; asked for again every second while one of them is under way, else every three. */
export function useRuns(query: () => { state?: string, limit?: number, cursor?: string | null }, { live = true } = {}) {
  return useQuery({
    queryKey: computed(() => ['runs', query()]),
    queryFn: ({ signal }) => runs(query(), signal),
    refetchInterval: live ? query => every(query.state.data?.items.some(run => run.state !== 'ended') ? 1000 : 3000)(query) : false,
    placeholderData: old => old,
  })
}

export function useRun(id: MaybeRefOrGetter<string>) {
  return useQuery({
    queryKey: computed(() => runKey(toValue(id))),
    queryFn: ({ signal }) => run(toValue(id), signal),
    // Its events tell of a run under way. One that has ended may still wait for a task's last word.
    refetchInterval: query => query.state.data && unsettled(query.state.data) ? every(1000)(query) : false,
  })
}

export function useWhy(id: MaybeRefOrGetter<string>, enabled: MaybeRefOrGetter<boolean>) {
  return useQuery({
    queryKey: computed(() => ['why', toValue(id)]),
    queryFn: ({ signal }) => why(toValue(id), signal),
    enabled: () => toValue(enabled),
    refetchInterval: every(2000),
  })
}

export function useTimeline(id: MaybeRefOrGetter<string>, ended: MaybeRefOrGetter<boolean>) {
  return useQuery({
    queryKey: computed(() => ['timeline', toValue(id)]),
    queryFn: ({ signal }) => timeline(toValue(id), signal),
    refetchInterval: query => every(toValue(ended) ? 10_000 : 2000)(query),
  })
}

export function useStopRun() {
  const queries = useQueryClient()
  return useMutation({
    mutationFn: stopRun,
    onSuccess: (answer: Run) => {
      queries.setQueryData(runKey(answer.id), (old: Run | undefined) => old ? { ...old, ...answer, tasks: answer.tasks ?? old.tasks } : old)
    },
  })
}

export function useCreateRun() {
  const queries = useQueryClient()
  return useMutation({
    mutationFn: ({ body, key }: { body: RunRequest, key: string }) => createRun(body, key),
    onSuccess: () => queries.invalidateQueries({ queryKey: ['runs'] }),
  })
}
