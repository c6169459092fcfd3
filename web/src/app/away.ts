import { ref } from 'vue'
import { me, onReached } from '@/api'
import { queries } from './queries'

/**
 * Whether the server is away, as the requests of this tab find it. While it is, it is asked once a
 * second; once it is back, all that is shown is asked for again.
 */
export const away = ref(false)

let asking: ReturnType<typeof setInterval> | undefined

onReached((answers) => {
  if (answers !== away.value) return
  away.value = !answers
  clearInterval(asking)
  if (answers) void queries.invalidateQueries()
  else asking = setInterval(() => { me().catch(() => {}) }, 1000) // what it finds comes back through onReached
})
