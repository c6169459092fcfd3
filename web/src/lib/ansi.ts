/**
 * Colours of a log line. Select Graphic Rendition sequences become spans; every other escape
 * sequence and control character is dropped or made visible, so that a node's output can colour
 * its own text and do nothing else.
 */

export interface Span { text: string, class: string }

// eslint-disable-next-line no-control-regex -- escape sequences are what this reads
const sequence = /\x1b(?:\[([0-9;:]*)([ -/]*[@-~])|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-Z\\^-~])/g
// eslint-disable-next-line no-control-regex -- and these are shown as pictures
const control = /[\x00-\x08\x0b-\x1f\x7f]/g

interface Style { fg: number, bold: boolean, dim: boolean, italic: boolean, underline: boolean }
const plain: Style = { fg: -1, bold: false, dim: false, italic: false, underline: false }

function visible(text: string): string {
  return text.replace(control, c => c === '\x7f' ? '\u2421' : String.fromCharCode(0x2400 + c.charCodeAt(0)))
}

function classes(style: Style): string {
  const all: string[] = []
  if (style.fg >= 0) all.push(`ansi-${style.fg}`)
  if (style.bold) all.push('ansi-bold')
  if (style.dim) all.push('ansi-dim')
  if (style.italic) all.push('ansi-italic')
  if (style.underline) all.push('ansi-underline')
  return all.join(' ')
}

/** The nearest of the 16 colours of the theme to one of the 256. */
function nearest(colour: number): number {
  if (colour < 16) return colour
  if (colour >= 232) return colour < 244 ? 8 : 7
  const cube = colour - 16
  const [r, g, b] = [Math.floor(cube / 36), Math.floor(cube / 6) % 6, cube % 6]
  const most = Math.max(r, g, b)
  if (most === 0) return 0
  const bit = (level: number) => level * 2 > most ? 1 : 0
  return bit(r) + 2 * bit(g) + 4 * bit(b) + (most > 3 ? 8 : 0)
}

function apply(style: Style, codes: number[]): Style {
  let next = { ...style }
  for (let i = 0; i < codes.length; i += 1) {
    const code = codes[i] ?? 0
    if (code === 0) next = { ...plain }
    else if (code === 1) next.bold = true
    else if (code === 2) next.dim = true
    else if (code === 3) next.italic = true
    else if (code === 4) next.underline = true
    else if (code === 22) next.bold = next.dim = false
    else if (code === 23) next.italic = false
    else if (code === 24) next.underline = false
    else if (code >= 30 && code <= 37) next.fg = code - 30
    else if (code >= 90 && code <= 97) next.fg = code - 82
    else if (code === 39) next.fg = -1
    else if (code === 38 || code === 48) {
      const kind = codes[i + 1]
      if (kind === 5 && code === 38) next.fg = nearest(codes[i + 2] ?? 0)
      i += kind === 5 ? 2 : kind === 2 ? 4 : 0
    }
  }
  return next
}

/** A progress bar rewrites its line with carriage returns: what it shows is what came last. */
function lastRewrite(text: string): string {
  const body = text.endsWith('\r') ? text.slice(0, -1) : text
  return body.slice(body.lastIndexOf('\r') + 1)
}

export function spans(line: string): Span[] {
  const text = lastRewrite(line)
  if (!text.includes('\x1b')) return [{ text: visible(text), class: '' }]
  const result: Span[] = []
  let style = plain
  let from = 0
  const push = (to: number) => {
    if (to > from) result.push({ text: visible(text.slice(from, to)), class: classes(style) })
  }
  for (const match of text.matchAll(sequence)) {
    push(match.index)
    from = match.index + match[0].length
    if (match[2] === 'm') style = apply(style, (match[1] ?? '').split(/[;:]/).map(Number))
  }
  push(text.length)
  return result
}

/** What a person reads of the line: no colours, no rewrites. */
export function plainText(line: string): string {
  return spans(line).map(span => span.text).join('')
}
