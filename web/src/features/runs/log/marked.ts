/** A text in pieces that match the search and pieces that do not; without regard to case, as the server searches. Pure. */
export function marked(text: string, query: string): { text: string, hit: boolean }[] {
  if (query === '') return [{ text, hit: false }]
  const pieces: { text: string, hit: boolean }[] = []
  const low = text.toLowerCase()
  const wanted = query.toLowerCase()
  // Lower case can change a text's length (İ): then positions would not fit, and the line stays unmarked.
  if (low.length !== text.length) return [{ text, hit: false }]
  let from = 0
  for (let at = low.indexOf(wanted); at >= 0; at = low.indexOf(wanted, from)) {
    if (at > from) pieces.push({ text: text.slice(from, at), hit: false })
    pieces.push({ text: text.slice(at, at + wanted.length), hit: true })
    from = at + wanted.length
  }
  if (from < text.length || pieces.length === 0) pieces.push({ text: text.slice(from), hit: false })
  return pieces
}
