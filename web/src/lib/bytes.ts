/** Base64 as the server's events carry log bytes. */

type Native = { fromBase64?: (text: string) => Uint8Array }

export function fromBase64(text: string): Uint8Array {
  const native = (Uint8Array as unknown as Native).fromBase64
  if (native) return native.call(Uint8Array, text)
  const binary = atob(text)
  const result = new Uint8Array(binary.length)
  for (let i = 0; i < binary.length; i += 1) result[i] = binary.charCodeAt(i)
  return result
}
