import { expect, test } from 'vitest'
import { marked } from './marked'

test.each([
  ['an Error, an error', 'error', [['an ', false], ['Error', true], [', an ', false], ['error', true]]],
  ['aaa', 'aa', [['aa', true], ['a', false]]],
  ['nothing', 'x', [['nothing', false]]],
  ['', 'x', [['', false]]],
  ['all', '', [['all', false]]],
  ['İstanbul', 'stan', [['İstanbul', false]]],
])('%s / %s', (text, query, pieces) => {
  expect(marked(text, query).map(piece => [piece.text, piece.hit])).toEqual(pieces)
})
