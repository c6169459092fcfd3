import { expect, test } from 'vitest'
import { plainText, spans } from './ansi'

test('colours become classes, and end', () => {
  expect(spans('\x1b[1;31mbad\x1b[0m fine')).toEqual([{ text: 'bad', class: 'ansi-1 ansi-bold' }, { text: ' fine', class: '' }])
  expect(spans('\x1b[92mok\x1b[39m.')).toEqual([{ text: 'ok', class: 'ansi-10' }, { text: '.', class: '' }])
})

test('256 colours fall to the nearest of 16; true colour and grounds are passed over', () => {
  expect(spans('\x1b[38;5;196mred')).toEqual([{ text: 'red', class: 'ansi-9' }])
  expect(spans('\x1b[38;2;1;2;3;4mx')).toEqual([{ text: 'x', class: 'ansi-underline' }])
  expect(spans('\x1b[48;5;1;3mx')).toEqual([{ text: 'x', class: 'ansi-italic' }])
})

test('a node cannot move the cursor, clear the screen, set a title or make a link', () => {
  expect(plainText('a\x1b[2J\x1b[1;1Hb\x1b]0;title\x07c\x1b]8;;http://x\x1b\\d\x1b(Be')).toBe('abcde')
  expect(plainText('cut off \x1b[3')).toBe('cut off ␛[3')
})

test('control characters are seen, tabs are kept', () => {
  expect(plainText('a\x00b\x07\tc\x7f')).toBe('a␀b␇\tc␡')
})

test('a progress bar shows its last state', () => {
  expect(plainText('10 %\r50 %\r100 %')).toBe('100 %')
  expect(plainText('10 %\r50 %\r')).toBe('50 %')
})
