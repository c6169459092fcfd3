import { useQueryClient } from '@tanstack/vue-query'
import { useRouter } from 'vue-router'
import { signOut } from '@/api'
import { pages } from '@/lib/paths'

/** Ends the login on the server, forgets all it showed, and goes to the sign-in page. */
export function useSignOut(): () => Promise<void> {
  const router = useRouter()
  const queries = useQueryClient()
  return async () => {
    await signOut()
    await router.replace(pages.signIn())
    queries.clear()
  }
}
