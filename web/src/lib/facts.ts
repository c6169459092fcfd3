/**
 * A tree of unknown facts as groups for a page: plain values of the top level first, then one
 * group for each branch; a list of like objects is a table. Sizes and durations are known by their
 * key's ending, so that a new fact needs no change here. Pure.
 */
import { bytes, duration } from './format'

export interface Group { title: string, rows: [string, string][], table: { head: string[], rows: string[][] } | null }

const short = /\b(cpu|os|ip|id|uuid|gpu)\b/g
const spoken = (key: string) => key.replace(/_(bytes|seconds|s)$/, '').replaceAll('_', ' ').replace(short, word => word.toUpperCase())

function value(key: string, fact: unknown): string {
  if (fact === null || fact === undefined || fact === '') return '–'
  if (typeof fact === 'number') {
    if (/(^|_)(bytes|total|used|free|available|size)$/.test(key) && fact >= 1024) return bytes(fact)
    if (/(^|_)percent$/.test(key)) return `${fact.toFixed(1)} %`
    if (/_(s|seconds)$|^uptime$/.test(key)) return duration(fact)
    if (key.endsWith('_time') && fact > 1e9) return new Date(fact * 1000).toLocaleString()
    return Number.isInteger(fact) ? String(fact) : fact.toFixed(2)
  }
  if (Array.isArray(fact)) return fact.map(item => value(key, item)).join(', ')
  if (typeof fact === 'object') return Object.entries(fact).map(([name, item]) => `${spoken(name)} ${value(name, item)}`).join(', ')
  return String(fact)
}

const isBranch = (fact: unknown): fact is Record<string, unknown> => typeof fact === 'object' && fact !== null && !Array.isArray(fact)
const isTable = (fact: unknown): fact is Record<string, unknown>[] => Array.isArray(fact) && fact.length > 0 && fact.every(isBranch)

export function groups(facts: Record<string, unknown>): Group[] {
  const top: Group = { title: '', rows: [], table: null }
  const rest: Group[] = []
  for (const [key, fact] of Object.entries(facts)) {
    if (isTable(fact)) {
      const head = [...new Set(fact.flatMap(row => Object.keys(row)))]
      rest.push({ title: spoken(key), rows: [], table: { head: head.map(spoken), rows: fact.map(row => head.map(name => value(name, row[name]))) } })
    }
    else if (isBranch(fact)) {
      rest.push({ title: spoken(key), rows: Object.entries(fact).map(([name, item]) => [spoken(name), value(name, item)]), table: null })
    }
    else top.rows.push([spoken(key), value(key, fact)])
  }
  return [...(top.rows.length ? [top] : []), ...rest]
}
