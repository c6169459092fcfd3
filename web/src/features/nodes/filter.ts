import type { Link, Node } from '@/api/types'

export type Tone = 'success' | 'warning' | 'error'
export const linkTone: Record<Link, Tone> = { online: 'success', unstable: 'warning', offline: 'error' }

const order: Record<Link, number> = { offline: 0, unstable: 1, online: 2 }

/** Every word must be in the name, an address, the link or a `key=value` label; trouble first, then by name. */
export function filterNodes(nodes: Node[], text: string): Node[] {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean)
  const has = (node: Node) => {
    const labels = Object.entries(node.labels).map(([key, value]) => `${key}=${value}`)
    const all = [node.name, node.link, node.admin, node.address ?? '', ...labels].join('\n').toLowerCase()
    return words.every(word => all.includes(word))
  }
  return nodes.filter(has).sort((a, b) => order[a.link] - order[b.link] || a.name.localeCompare(b.name, 'en', { numeric: true }))
}
