import { QueryClient } from '@tanstack/vue-query'
import { Problem } from '@/api'

/** A refusal is an answer and is shown at once; a server that does not answer is asked again for ever. */
function again(failures: number, error: Error): boolean {
  return error instanceof Problem && (error.status === 0 || error.status >= 502) && failures < 1000
}

export const queries = new QueryClient({
  defaultOptions: {
    queries: {
      retry: again,
      retryDelay: failures => Math.min(5000, 500 * 2 ** failures),
      staleTime: 1000,
      // The browser's idea of being online says nothing about a server on this machine or network.
      networkMode: 'always',
    },
    mutations: { networkMode: 'always' },
  },
})
