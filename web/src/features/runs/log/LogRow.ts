import { h, type FunctionalComponent } from 'vue'
import type { LogLine } from '@/api/types'
import { spans } from '@/lib/ansi'
import { clock } from '@/lib/format'
import { marked } from './marked'

interface Props { number: number, line: LogLine | undefined, times: boolean, wrap: boolean, width: number, query: string, current: boolean, cut: string }

/** One row of the log, as cheap as it gets: a scroll draws some sixty of them a frame. */
export const LogRow: FunctionalComponent<Props> = ({ number, line, times, wrap, width, query, current, cut }) => {
  const stderr = line?.stream === 'stderr'
  const ground = current ? 'bg-warning/20' : stderr ? 'bg-error/5' : ''
  const gutter = stderr ? 'border-error text-error/80' : 'border-transparent text-dimmed'
  const text = line === undefined
    ? [h('span', { class: 'my-1.5 h-2 w-40 rounded bg-elevated' })]
    : spans(line.text).flatMap(span => marked(span.text, query).map(piece =>
        h(piece.hit ? 'mark' : 'span', { class: [span.class, piece.hit ? 'rounded-xs bg-warning/40 text-inherit' : ''] }, piece.text)))
  return h('div', { class: ['flex', wrap ? 'min-h-5 w-full whitespace-pre-wrap' : 'h-5 w-max min-w-full whitespace-pre', ground], title: line?.cut ? cut : undefined }, [
    h('span', { class: ['sticky left-0 shrink-0 border-s-2 bg-default pe-3 ps-2 text-end select-none tabular-nums', gutter], style: { width: `${width + 2.5}ch`, boxSizing: 'content-box' } }, String(number + 1)),
    times ? h('span', { class: 'shrink-0 pe-3 text-dimmed select-none' }, line ? clock(line.time) : '') : null,
    h('span', { class: ['pe-4', stderr ? 'text-error' : 'text-toned', wrap ? 'min-w-0 [overflow-wrap:anywhere]' : ''] }, line?.cut ? [...text, h('span', { class: 'text-warning' }, ' …')] : text),
  ])
}
LogRow.props = ['number', 'line', 'times', 'wrap', 'width', 'query', 'current', 'cut']
