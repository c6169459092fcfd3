import { computed } from 'vue'
import { useI18n } from 'vue-i18n'
import { useAuditors } from '@/features/audit/queries'
import { pages } from '@/lib/paths'

/** The places of the console that this user has, for the menu and for the palette. */
export function usePlaces() {
  const { t } = useI18n()
  const { may: mayAudit } = useAuditors()
  return computed(() => [
    { label: t('runs.title'), icon: 'i-lucide-play', to: pages.runs() },
    { label: t('nodes.title'), icon: 'i-lucide-server', to: pages.nodes() },
    { label: t('projects.title'), icon: 'i-lucide-boxes', to: pages.projects() },
    { label: t('secrets.title'), icon: 'i-lucide-key-round', to: pages.secrets() },
    { label: t('users.title'), icon: 'i-lucide-users', to: pages.users() },
    ...mayAudit.value ? [{ label: t('audit.title'), icon: 'i-lucide-scroll-text', to: pages.audit() }] : [],
  ])
}
