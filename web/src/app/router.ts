import { createRouter, createWebHistory } from 'vue-router'
import { me } from '@/api'
import { pages, patterns } from '@/lib/paths'
import { queries } from './queries'
import { meKey } from '@/features/session/me'

export const router = createRouter({
  history: createWebHistory(),
  routes: [
    { path: patterns.signIn, component: () => import('@/features/session/SignInPage.vue'), meta: { open: true, title: 'signIn.title' } },
    {
      path: patterns.home,
      component: () => import('./Shell.vue'),
      redirect: pages.runs(),
      children: [
        { path: patterns.nodes, component: () => import('@/features/nodes/NodesPage.vue'), meta: { title: 'nodes.title' } },
        { path: patterns.node, component: () => import('@/features/nodes/NodePage.vue'), props: true, meta: { title: 'nodes.title' } },
        { path: patterns.runs, component: () => import('@/features/runs/RunsPage.vue'), meta: { title: 'runs.title' } },
        { path: patterns.newRun, component: () => import('@/features/runs/NewRunPage.vue'), meta: { title: 'create.title' } },
        { path: patterns.run, component: () => import('@/features/runs/RunPage.vue'), props: true, meta: { title: 'runs.title' } },
        { path: patterns.secrets, component: () => import('@/features/secrets/SecretsPage.vue'), meta: { title: 'secrets.title' } },
        { path: patterns.audit, component: () => import('@/features/audit/AuditPage.vue'), meta: { title: 'audit.title' } },
        { path: patterns.account, component: () => import('@/features/session/AccountPage.vue'), meta: { title: 'account.title' } },
        { path: patterns.users, component: () => import('@/features/people/UsersPage.vue'), meta: { title: 'users.title' } },
        { path: patterns.projects, component: () => import('@/features/people/ProjectsPage.vue'), meta: { title: 'projects.title' } },
        { path: patterns.project, component: () => import('@/features/people/ProjectPage.vue'), props: true, meta: { title: 'projects.title' } },
        { path: patterns.lost, component: () => import('./LostPage.vue'), meta: { title: 'app.name' } },
      ],
    },
  ],
})

router.beforeEach(async (to) => {
  if (to.meta.open) return true
  try {
    await queries.ensureQueryData({ queryKey: meKey, queryFn: ({ signal }) => me(signal), retry: false })
  }
  catch (error) {
    // A server that is away is the page's to report; only a clear "who are you" leads to the sign-in.
    if ((error as { status?: number }).status === 401) return pages.signIn({ to: to.fullPath })
  }
  return true
})

// A server that was upgraded under an open tab has other files: the page is then loaded whole, unless it is the first.
router.onError((_, to, from) => {
  if (from.matched.length > 0) location.assign(to.fullPath)
})
