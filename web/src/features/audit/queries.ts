import { useQuery } from '@tanstack/vue-query'
import { computed, toValue, type MaybeRefOrGetter } from 'vue'
import { audit } from '@/api'
import { useMe } from '@/features/session/me'
import { queryOf, type Filter } from './filter'

/** Whose audit this person may read: of which projects, and whether of the whole system. */
export function useAuditors() {
  const { data: me } = useMe()
  const projects = computed(() => (me.value?.projects ?? []).filter(one => one.permissions.includes('read-audit')).map(one => one.name))
  const ofSystem = computed(() => me.value?.permissions.includes('read-system-audit') ?? false)
  return { projects, ofSystem, isKnown: computed(() => me.value !== undefined), may: computed(() => ofSystem.value || projects.value.length > 0) }
}

/** A page of the audit, newest first. It is asked for when it is looked at, not again and again. */
export function useAudit(filter: MaybeRefOrGetter<Filter>, after: MaybeRefOrGetter<string>, enabled: MaybeRefOrGetter<boolean>) {
  const asked = computed(() => ({ ...queryOf(toValue(filter)), cursor: toValue(after) }))
  return useQuery({
    queryKey: computed(() => ['audit', asked.value]),
    queryFn: ({ signal }) => audit(asked.value, signal),
    enabled: () => toValue(enabled),
    placeholderData: old => old,
  })
}
