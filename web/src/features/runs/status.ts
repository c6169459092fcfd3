/** What a person reads of a run or task, and how events change a run. Pure. */
import { bytes, duration, elapsed } from '@/lib/format'
import type { Counts, Outcome, Run, RunInList, Spec, Task } from '@/api/types'

export type Status = Outcome | 'pending' | 'assigned' | 'running' | 'stopping'
export type Tone = 'success' | 'error' | 'warning' | 'info' | 'neutral'

/** Outcomes are what people read (GLOSSARY: outcome); until there is one, the state, and `stopping` once a stop is wished. */
export function runStatus(run: Pick<RunInList, 'state' | 'outcome' | 'wish'>): Status {
  if (run.state === 'ended') return run.outcome ?? 'succeeded'
  return run.wish === 'stop' ? 'stopping' : run.state
}

export function taskStatus(task: Pick<Task, 'state' | 'outcome'>): Status {
  if (task.outcome !== null) return task.outcome
  if (task.state === 'exited') return 'running' // exited but not sealed: the log is still on its way
  return task.state
}

/** How long a task has run, in words; nothing before it starts. */
export function took(task: Pick<Task, 'duration' | 'started_at' | 'outcome'>, now: number): string {
  if (task.duration !== null) return duration(task.duration)
  if (task.started_at === null || task.outcome !== null) return ''
  return elapsed((now - Date.parse(task.started_at)) / 1000)
}

/** How much it has written, in words, once the server has said so. */
export function wrote(task: Pick<Task, 'log'>): string {
  return task.log.state === 'open' && !task.log.length ? '' : bytes(task.log.length ?? 0)
}

const tones: Record<Status, Tone> = {
  succeeded: 'success', failed: 'error', timed_out: 'error', canceled: 'neutral', lost: 'warning',
  refused: 'warning', expired: 'warning', running: 'info', assigned: 'info', pending: 'neutral', stopping: 'warning',
}
export const tone = (status: Status): Tone => tones[status]

const icons: Record<Status, string> = {
  succeeded: 'i-lucide-circle-check', failed: 'i-lucide-circle-x', timed_out: 'i-lucide-alarm-clock-off',
  canceled: 'i-lucide-circle-slash', lost: 'i-lucide-unplug', refused: 'i-lucide-shield-x', expired: 'i-lucide-hourglass',
  running: 'i-lucide-loader-circle', assigned: 'i-lucide-send', pending: 'i-lucide-circle-dashed', stopping: 'i-lucide-circle-stop',
}
export const icon = (status: Status): string => icons[status]

/** The order in which counts are drawn and named. */
export const countOrder = ['succeeded', 'failed', 'timed_out', 'lost', 'refused', 'expired', 'canceled', 'running', 'assigned', 'pending'] as const

export function ended(counts: Counts): number {
  return counts.total - counts.pending - counts.assigned - counts.running
}

/** One line that says what a run does. */
export function headline(run: Pick<RunInList, 'name' | 'spec'>): string {
  if (run.name) return run.name
  return scriptHeadline(run.spec) ?? run.spec.kind
}

function scriptHeadline(spec: Spec): string | null {
  if (spec.kind !== 'script') return null
  const lines = (spec as { script: string }).script.split('\n').map(line => line.trim())
  return lines.find(line => line !== '' && !line.startsWith('#') && !/^set [-+]/.test(line)) ?? lines[0] ?? null
}

/** A `run` event has no tasks, a `task` event is one of them. */
export function withRun(old: Run, event: RunInList): Run {
  return { ...old, ...event, tasks: old.tasks }
}

export function withTask(old: Run, task: Task): Run {
  const at = old.tasks.findIndex(other => other.id === task.id)
  const tasks = [...old.tasks]
  if (at < 0) tasks.push(task)
  else tasks[at] = task
  return { ...old, tasks }
}

/** Whether a run has ended by its own account while a task of it has not. */
export function unsettled(run: Run): boolean {
  return run.state === 'ended' && run.tasks.some(task => task.outcome === null)
}

/** Which task to show first: one that runs, else one that went wrong, else the first. */
export function firstTask(tasks: Task[]): Task | undefined {
  const went = (task: Task) => tone(taskStatus(task))
  return tasks.find(task => taskStatus(task) === 'running')
    ?? tasks.find(task => went(task) === 'error')
    ?? tasks.find(task => went(task) === 'warning')
    ?? tasks[0]
}
