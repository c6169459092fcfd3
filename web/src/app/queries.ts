import { QueryClient } from '@tanstack/vue-query'
import { Problem } from '@/api'

/** A refusal is an answer and is shown at once; a server that does not answer is asked again for ever. */
function again(failures: number, error: Error): boolean {
  return error instanceof Problem && (error.status === 0 || error.status >= 502) && failures < 1000
}

/**
 * How often to ask again, in milliseconds. What one may not see (403) is not asked for again and again: the server
 * writes each refusal into the audit. A look at the page later asks anew.
 */
export function every(interval: number) {
  return ({ state }: { state: { error: Error | null } }) => state.error instanceof Problem && state.error.status === 403 ? false : interval
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
