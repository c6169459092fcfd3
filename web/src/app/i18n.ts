import { en as uiEn, zh_cn as uiZh } from '@nuxt/ui/locale'
import { useLocalStorage } from '@vueuse/core'
import { computed, watchEffect } from 'vue'
import { createI18n } from 'vue-i18n'
import { en, type Messages } from './messages/en'
import { zh } from './messages/zh'

export type Language = 'en' | 'zh'
export const languages: { label: string, value: Language }[] = [
  { label: 'English', value: 'en' },
  { label: '中文', value: 'zh' },
]

const first: Language = navigator.language.toLowerCase().startsWith('zh') ? 'zh' : 'en'
const chosen = useLocalStorage<Language>('fleetwire-language', first)

export const i18n = createI18n<[Messages], Language, false>({
  legacy: false,
  locale: chosen.value,
  fallbackLocale: 'en',
  messages: { en, zh },
})

watchEffect(() => {
  i18n.global.locale.value = chosen.value
  document.documentElement.lang = chosen.value
})

/** The language of this browser, and Nuxt UI's own words in it. */
export function useLanguage() {
  return { language: chosen, ui: computed(() => chosen.value === 'zh' ? uiZh : uiEn) }
}
