/** A text in pieces that match the search and pieces that do not; exactly as written, as the server searches. Pure. */
export function marked(text: string, query: string): { text: string, hit: boolean }[] {
  if (query === '') return [{ text, hit: false }]
  const pieces: { text: string, hit: boolean }[] = []
  let from = 0
  for (let at = text.indexOf(query); at >= 0; at = text.indexOf(query, from)) {
    if (at > from) pieces.push({ text: text.slice(from, at), hit: false })
    pieces.push({ text: query, hit: true })
    from = at + query.length
  }
  if (from < text.length || pieces.length === 0) pieces.push({ text: text.slice(from), hit: false })
  return pieces
}
