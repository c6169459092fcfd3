import { computed, watchPostEffect, type Ref } from 'vue'
import { anchor, anchorFor, scrollFor } from '@/lib/rows'
import { useRows } from '@/lib/useRows'

type Element = Readonly<Ref<HTMLElement | null>>

/** A line of the log, not wrapped, in pixels. */
export const lineHeight = 20
/** Up to here wrapped lines are all drawn and scroll as any text does. */
export const flat = 400

/**
 * Which lines of a log are drawn, and where. Unwrapped lines have one height. Wrapped ones have as
 * many rows as their text needs: of a long log one line is then held in place (`anchor`) and its
 * neighbours stand above and below it; so a line of very many rows passes faster than others.
 */
export function useLines(box: Element, block: Element, total: () => number, wrap: Readonly<Ref<boolean>>) {
  const { rows, canvasHeight, slice, scrollTop, width } = useRows(box, total, lineHeight)
  const all = computed(() => wrap.value && total() <= flat)
  const held = computed(() => anchor(rows.value, scrollTop.value))

  const drawn = computed(() => {
    if (!wrap.value) return slice.value
    if (all.value) return { first: 0, count: total() }
    const reach = Math.ceil(rows.value.viewport / lineHeight) + 2
    const first = Math.max(0, held.value.row - reach)
    return { first, count: Math.min(total(), held.value.row + reach) - first }
  })

  /** Puts the block where it belongs, after each drawing: `changed` is what else changes heights. */
  function place(changed: () => unknown): void {
    watchPostEffect(() => {
      changed()
      const element = block.value
      if (!element || width.value < 0) return
      if (all.value) element.style.transform = ''
      else if (!wrap.value) element.style.transform = `translateY(${slice.value.top}px)`
      else {
        const { row, part, at } = held.value
        const line = element.children[row - drawn.value.first] as HTMLElement | undefined
        if (line) element.style.transform = `translateY(${at - line.offsetTop - part * line.offsetHeight}px)`
      }
    })
  }

  function reveal(line: number): void {
    if (!box.value) return
    if (all.value) block.value?.children[line]?.scrollIntoView({ block: 'center' })
    else box.value.scrollTop = wrap.value ? anchorFor(rows.value, line) : scrollFor(rows.value, line)
  }

  return { rows, drawn, all, canvasHeight, place, reveal }
}
