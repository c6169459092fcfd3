/** A run that is being written, and what it asks of the server. Pure. */
import type { Node, Run, RunRequest, ScriptSpec, Shell } from '@/api/types'

export interface Draft {
  mode: 'selector' | 'nodes'
  selector: string
  nodes: string[]
  any: number | undefined
  script: string
  shell: Shell
  timeout: number
  name: string
  project: string | null
}

/** A node's name is its own in its project only: who names a node names the project as well. */
export function newDraft(node: string | null = null, project: string | null = null): Draft {
  return { mode: node === null ? 'selector' : 'nodes', selector: '', nodes: node === null ? [] : [node], any: undefined, script: '', shell: 'sh', timeout: 7200, name: '', project }
}

export function draftOf(run: Run, spec: ScriptSpec): Draft {
  return {
    mode: run.selector === null ? 'nodes' : 'selector',
    selector: run.selector ?? '',
    nodes: run.nodes ?? [],
    any: run.any ?? undefined,
    script: spec.script,
    shell: spec.shell ?? 'sh',
    timeout: spec.timeout ?? 7200,
    name: run.name ?? '',
    project: run.project,
  }
}

export function requestOf(draft: Draft): RunRequest {
  const bySelector = draft.mode === 'selector'
  return {
    spec: { kind: 'script', script: draft.script.endsWith('\n') ? draft.script : `${draft.script}\n`, shell: draft.shell, timeout: draft.timeout },
    selector: bySelector ? draft.selector.trim() : null,
    nodes: bySelector ? null : draft.nodes,
    any: draft.any ?? null,
    name: draft.name.trim() || null,
    ...(draft.project === null ? {} : { project: draft.project }),
  }
}

/** Which part of the form a problem's `field` belongs to. */
export function fieldOf(field: string): 'where' | null {
  return /^(body\.)?(selector|nodes)\b/.test(field) ? 'where' : null
}

/** The nodes that a run in this project may use; null: nobody had to choose. */
export function nodesOf(nodes: Node[], project: string | null): Node[] {
  return project === null ? nodes : nodes.filter(node => node.project === project)
}

/** The labels most nodes have, as selectors: at most `most`. */
export function labelsOf(nodes: Node[], most = 12): string[] {
  const counts = new Map<string, number>()
  for (const node of nodes) {
    for (const [key, value] of Object.entries(node.labels)) {
      const label = value === '' ? key : `${key}=${value}`
      counts.set(label, (counts.get(label) ?? 0) + 1)
    }
  }
  return [...counts].sort(([a, m], [b, n]) => n - m || a.localeCompare(b)).slice(0, most).map(([label]) => label)
}
