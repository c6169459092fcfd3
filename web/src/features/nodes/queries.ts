import { useQuery } from '@tanstack/vue-query'
import { toValue, type MaybeRefOrGetter } from 'vue'
import { node, nodeEvents, nodes } from '@/api'
import { every } from '@/app/queries'

/** All nodes; refreshed while the page is looked at. */
export function useNodes({ live = true } = {}) {
  return useQuery({
    queryKey: ['nodes'],
    queryFn: ({ signal }) => nodes(signal),
    refetchInterval: live ? every(3000) : false,
    staleTime: live ? 1000 : 30_000,
  })
}

export function useNode(id: MaybeRefOrGetter<string>) {
  return useQuery({
    queryKey: ['node', id],
    queryFn: ({ signal }) => node(toValue(id), signal),
    refetchInterval: every(3000),
  })
}

/** What happened to a node lately, newest first. */
export function useNodeEvents(id: MaybeRefOrGetter<string>) {
  return useQuery({
    queryKey: ['node-events', id],
    queryFn: ({ signal }) => nodeEvents(toValue(id), signal),
    refetchInterval: every(5000),
  })
}
