import './style.css'
import ui from '@nuxt/ui/vue-plugin'
import { VueQueryPlugin } from '@tanstack/vue-query'
import { createApp } from 'vue'
import { onUnauthorised } from '@/api'
import { pages, patterns } from '@/lib/paths'
import App from './App.vue'
import { i18n } from './i18n'
import { queries } from './queries'
import { router } from './router'

// The login has ended (or never began): sign in and come back to this very page.
onUnauthorised(() => {
  const here = router.currentRoute.value
  if (here.path === patterns.signIn) return
  queries.clear()
  void router.replace(pages.signIn({ to: here.fullPath }))
})

createApp(App).use(router).use(i18n).use(VueQueryPlugin, { queryClient: queries }).use(ui).mount('#app')
