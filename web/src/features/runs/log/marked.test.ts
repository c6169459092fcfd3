import { expect, test } from 'vitest'
import { marked } from './marked'

test.each([
  ['an error, an Error, error', 'error', [['an ', false], ['error', true], [', an Error, ', false], ['error', true]]],
  ['aaa', 'aa', [['aa', true], ['a', false]]],
  ['nothing', 'x', [['nothing', false]]],
  ['', 'x', [['', false]]],
  ['all', '', [['all', false]]],
  ['İstanbul', 'stan', [['İ', false], ['stan', true], ['bul', false]]],
])('%s / %s', (text, query, pieces) => {
  expect(marked(text, query).map(piece => [piece.text, piece.hit])).toEqual(pieces)
})
