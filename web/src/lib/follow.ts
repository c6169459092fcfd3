/**
 * One followed stream of server-sent events that ends only when it is told to.
 *
 * `EventSource` comes back by itself after a broken connection (with `Last-Event-ID`), but gives up
 * for good on an error status; then this opens a new one, with a growing and jittered pause, at the
 * address `url()` names by then (the log stream names its own offset). A tab nobody looks at holds
 * no connection: HTTP/1.1 has only six for all tabs of a host.
 */

export type FollowState = 'connecting' | 'open' | 'waiting' | 'closed'

export interface FollowOptions {
  url: () => string
  events: Record<string, (data: unknown) => void>
  /** Called at each change; `again` is true for an `open` that is not the first. */
  onState: (state: FollowState, again: boolean) => void
  /**
   * Called when the stream broke or was refused: the place to notice that the server is away or the login has ended.
   * Only its answer says why a stream was refused: what one may not see any more is closed there, and not asked for again.
   */
  onLost?: () => void
}

export interface Followed { close(): void }

const longest = 15_000

/** The pause before try number `attempt` (0, 1, ...): 0.5 s doubling to 15 s, and up to half of it less. */
export function pause(attempt: number, random: number): number {
  return Math.min(longest, 500 * 2 ** attempt) * (1 - random / 2)
}

export function follow(options: FollowOptions): Followed {
  let source: EventSource | null = null
  let timer: ReturnType<typeof setTimeout> | undefined
  let attempts = 0
  let opened = false
  let closed = false

  function drop(): void {
    source?.close()
    source = null
    clearTimeout(timer)
  }

  function open(): void {
    drop()
    if (closed || document.hidden) return
    options.onState('connecting', opened)
    source = new EventSource(options.url())
    source.onopen = () => {
      attempts = 0
      options.onState('open', opened)
      opened = true
    }
    source.onerror = () => {
      options.onLost?.()
      if (source?.readyState !== EventSource.CLOSED) {
        options.onState('connecting', opened)
        return
      }
      options.onState('waiting', opened)
      timer = setTimeout(open, pause(attempts, Math.random()))
      attempts += 1
    }
    for (const [name, take] of Object.entries(options.events)) {
      source.addEventListener(name, event => take(JSON.parse((event as MessageEvent<string>).data || 'null')))
    }
  }

  function look(): void {
    if (document.hidden) drop()
    else if (source === null) open()
  }

  document.addEventListener('visibilitychange', look)
  open()
  return {
    close() {
      closed = true
      document.removeEventListener('visibilitychange', look)
      drop()
      options.onState('closed', opened)
    },
  }
}
