import { createSharedComposable, useNow } from '@vueuse/core'
import { computed } from 'vue'

/** The wall time in milliseconds, once a second, shared by all who show it. */
export const useClock = createSharedComposable(() => {
  const now = useNow({ interval: 1000 })
  return computed(() => now.value.getTime())
})
