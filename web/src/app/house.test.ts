/** The house rules of the console, as tests over its sources (style.md 28 to 30). */
import { readdirSync, readFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { parse } from 'vue/compiler-sfc'
import { expect, test } from 'vitest'
import { en } from './messages/en'
import { zh } from './messages/zh'

const root = join(import.meta.dirname, '..')
const all = readdirSync(root, { recursive: true, withFileTypes: true })
  .filter(entry => entry.isFile() && /\.(vue|ts)$/.test(entry.name) && !/\.test\.ts$/.test(entry.name) && !entry.parentPath.endsWith('generated'))
  .map((entry) => {
    const path = join(entry.parentPath, entry.name)
    return { path: relative(root, path).replaceAll('\\', '/'), text: readFileSync(path, 'utf8') }
  })
const components = all.filter(file => file.path.endsWith('.vue'))

interface Template { type: number, content?: string | { content?: string }, children?: Template[], props?: { type: number, name: string, value?: { content: string } }[] }

/** Words a person would read that are written into a template. */
function rawTexts(node: Template): string[] {
  const words = /\p{L}{2,}/u
  const found: string[] = []
  if (node.type === 2 && typeof node.content === 'string' && words.test(node.content)) found.push(node.content.trim())
  for (const prop of node.props ?? []) {
    const spoken = ['title', 'label', 'aria-label', 'aria-description', 'alt', 'description', 'help', 'hint', 'text'].includes(prop.name)
    if (prop.type === 6 && spoken && words.test(prop.value?.content ?? '')) found.push(`${prop.name}="${prop.value?.content}"`)
  }
  return [...found, ...(node.children ?? []).flatMap(rawTexts)]
}

function keys(messages: object, prefix = ''): string[] {
  return Object.entries(messages).flatMap(([key, value]) => typeof value === 'string' ? [`${prefix}${key}`] : keys(value as object, `${prefix}${key}.`))
}

test('there is something to look at', () => expect(components.length).toBeGreaterThan(20))

test('no raw text: every word goes through the messages', () => {
  const raw = components.flatMap(({ path, text }) => rawTexts(parse(text).descriptor.template?.ast as unknown as Template ?? { type: 0 }).map(found => `${path}: ${found}`))
  expect(raw).toEqual([])
})

test('the rule on raw text can fail', () => {
  const ast = parse('<template><p title="Hello">{{ a }} there</p></template>').descriptor.template?.ast
  expect(rawTexts(ast as unknown as Template)).toEqual(['title="Hello"', 'there'])
})

test('every message that is asked for exists, and both languages have the same', () => {
  const known = keys(en)
  const asked = all.flatMap(({ path, text }) => [...text.matchAll(/\b\$?t\(\s*'([\w.]+)'/g)].map(match => ({ path, key: match[1]! })))
  expect(asked.length).toBeGreaterThan(80)
  expect(asked.filter(({ key }) => !known.includes(key))).toEqual([])
  expect(keys(zh)).toEqual(known)
})

test('URLs come only from the path builder', () => {
  const strays = all.filter(file => file.path !== 'lib/paths.ts' && /['"`]\/(api|runs|nodes|sign-in)\b/.test(file.text))
  expect(strays.map(file => file.path)).toEqual([])
})

test('nothing names another host', () => {
  expect(all.filter(file => /https?:\/\/(?!127\.0\.0\.1)/.test(file.text)).map(file => file.path)).toEqual([])
})

test('components have fewer than 200 lines', () => {
  expect(components.filter(file => file.text.split('\n').length >= 200).map(file => file.path)).toEqual([])
})

test('ui and lib know nothing of Fleetwire', () => {
  const inner = all.filter(file => /^(ui|lib)\//.test(file.path))
  expect(inner.filter(file => /from '@\/(api|app|features)/.test(file.text)).map(file => file.path)).toEqual([])
})

test('the pages of nodes and runs do not reach into each other but through queries and states', () => {
  const nodes = all.filter(file => file.path.startsWith('features/nodes/'))
  expect(nodes.filter(file => file.text.includes('@/features/runs')).map(file => file.path)).toEqual([])
})

test('the lock names no registry, so it works with whichever npm is set to', () => {
  const lock = readFileSync(join(root, '../package-lock.json'), 'utf8')
  expect(lock).not.toMatch(/"resolved"|registry/)
})
