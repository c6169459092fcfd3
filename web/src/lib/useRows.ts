import { useElementSize, useEventListener } from '@vueuse/core'
import { computed, shallowRef, type Ref } from 'vue'
import { canvas, shown, type Rows } from './rows'

/** A virtual list of rows of one height inside a scrolling element: the arithmetic of `rows.ts`, made reactive. */
export function useRows(box: Readonly<Ref<HTMLElement | null>>, total: () => number, height: number) {
  const { height: viewport, width } = useElementSize(box)
  const scrollTop = shallowRef(0)
  useEventListener(box, 'scroll', () => { scrollTop.value = box.value?.scrollTop ?? 0 }, { passive: true })
  const rows = computed<Rows>(() => ({ height, total: total(), viewport: viewport.value }))
  return {
    rows,
    scrollTop,
    width,
    canvasHeight: computed(() => canvas(rows.value)),
    slice: computed(() => shown(rows.value, scrollTop.value)),
  }
}
