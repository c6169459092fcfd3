import { expect, test } from 'vitest'
import { fromBase64 } from './bytes'

test('all bytes survive, with and without the browser\'s own decoder', () => {
  const all = Uint8Array.from({ length: 256 }, (_, n) => n)
  const text = Buffer.from(all).toString('base64')
  expect([...fromBase64(text)]).toEqual([...all])
  const native = Object.getOwnPropertyDescriptor(Uint8Array, 'fromBase64')
  Object.defineProperty(Uint8Array, 'fromBase64', { value: undefined, configurable: true })
  try {
    expect([...fromBase64(text)]).toEqual([...all])
  }
  finally {
    if (native) Object.defineProperty(Uint8Array, 'fromBase64', native)
    else Reflect.deleteProperty(Uint8Array, 'fromBase64')
  }
})
