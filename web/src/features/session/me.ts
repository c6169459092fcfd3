import { useQuery } from '@tanstack/vue-query'
import { me } from '@/api'

export const meKey = ['me'] as const

/** Who is signed in. */
export function useMe() {
  return useQuery({ queryKey: meKey, queryFn: ({ signal }) => me(signal), staleTime: 60_000 })
}
