import { expect, test } from 'vitest'
import { api, pages, patterns } from './paths'

const id = 'a/b c'

test('every URL of the console', () => {
  expect({
    patterns,
    pages: [
      pages.home(), pages.signIn(), pages.signIn({ to: '/runs/1?task=2' }), pages.nodes(), pages.nodes({ q: 'os=linux' }), pages.node(id),
      pages.runs(), pages.runs({ state: 'running' }), pages.runs({ state: 'ended', after: 'c d' }), pages.newRun(), pages.newRun({ node: 'web-1' }), pages.newRun({ from: '1' }),
      pages.run(id), pages.run('1', { task: 0, q: 'a&b' }), pages.account(), pages.users(), pages.projects(), pages.project(id), pages.secrets(),
    ],
    api: [
      api.login(), api.oidc(), api.ownPassword(), api.ownSessions(), api.ownSession(id), api.ownTotp(), api.confirmTotp(), api.endTotp(), api.tokens({ limit: 5 }), api.token(id),
      api.users(), api.user(id), api.userPassword(id), api.projects(), api.members(id), api.member(id, id), api.secrets({ limit: 5 }), api.secret(id, { project: 'web' }),
      api.me(), api.enrolmentTokens(), api.nodes(), api.nodes({ limit: 5, cursor: 'c' }), api.node(id), api.nodeForced(id), api.nodeApprove(id), api.nodeRelease(id), api.nodeEvents(id, { limit: 20 }), api.system(), api.closeBreaker(),
      api.runs(), api.runs({ state: '', limit: 50, cursor: null }),
      api.run(id), api.runStop(id), api.runWhy(id), api.runTimeline(id, { limit: 500, cursor: 'c' }), api.runEvents(id), api.logLines(id, { line: 0, lines: 500 }), api.logTail('1', 500),
      api.logSearch('1', { q: 'ü ?', from_line: 3, limit: 10 }), api.logStream('1', 0), api.logRaw('1'),
    ],
  }).toMatchInlineSnapshot(`
    {
      "api": [
        "/api/v1/login",
        "/api/v1/login/oidc",
        "/api/v1/me/password",
        "/api/v1/me/sessions",
        "/api/v1/me/sessions/a%2Fb%20c",
        "/api/v1/me/totp",
        "/api/v1/me/totp/confirm",
        "/api/v1/me/totp/end",
        "/api/v1/tokens?limit=5",
        "/api/v1/tokens/a%2Fb%20c",
        "/api/v1/users",
        "/api/v1/users/a%2Fb%20c",
        "/api/v1/users/a%2Fb%20c/password",
        "/api/v1/projects",
        "/api/v1/projects/a%2Fb%20c/members",
        "/api/v1/projects/a%2Fb%20c/members/a%2Fb%20c",
        "/api/v1/secrets?limit=5",
        "/api/v1/secrets/a%2Fb%20c?project=web",
        "/api/v1/me",
        "/api/v1/enrolment-tokens",
        "/api/v1/nodes",
        "/api/v1/nodes?limit=5&cursor=c",
        "/api/v1/nodes/a%2Fb%20c",
        "/api/v1/nodes/a%2Fb%20c?force=1",
        "/api/v1/nodes/a%2Fb%20c/approve",
        "/api/v1/nodes/a%2Fb%20c/release",
        "/api/v1/nodes/a%2Fb%20c/events?limit=20",
        "/api/v1/system",
        "/api/v1/system/close-breaker",
        "/api/v1/runs",
        "/api/v1/runs?limit=50",
        "/api/v1/runs/a%2Fb%20c",
        "/api/v1/runs/a%2Fb%20c/stop",
        "/api/v1/runs/a%2Fb%20c/why",
        "/api/v1/runs/a%2Fb%20c/timeline?limit=500&cursor=c",
        "/api/v1/runs/a%2Fb%20c/events?logs=0",
        "/api/v1/attempts/a%2Fb%20c/log?line=0&lines=500",
        "/api/v1/attempts/1/log?tail=500",
        "/api/v1/attempts/1/log/search?q=%C3%BC+%3F&from_line=3&limit=10",
        "/api/v1/attempts/1/log/stream?offset=0",
        "/api/v1/attempts/1/log/raw",
      ],
      "pages": [
        "/",
        "/sign-in",
        "/sign-in?to=%2Fruns%2F1%3Ftask%3D2",
        "/nodes",
        "/nodes?q=os%3Dlinux",
        "/nodes/a%2Fb%20c",
        "/runs",
        "/runs?state=running",
        "/runs?state=ended&after=c+d",
        "/runs/new",
        "/runs/new?node=web-1",
        "/runs/new?from=1",
        "/runs/a%2Fb%20c",
        "/runs/1?task=0&q=a%26b",
        "/account",
        "/users",
        "/projects",
        "/projects/a%2Fb%20c",
        "/secrets",
      ],
      "patterns": {
        "account": "/account",
        "home": "/",
        "lost": "/:rest(.*)*",
        "newRun": "/runs/new",
        "node": "/nodes/:id",
        "nodes": "/nodes",
        "project": "/projects/:name",
        "projects": "/projects",
        "run": "/runs/:id",
        "runs": "/runs",
        "secrets": "/secrets",
        "signIn": "/sign-in",
        "users": "/users",
      },
    }
  `)
})

test('every builder is in the snapshot above', () => {
  expect([Object.keys(pages).length, Object.keys(api).length]).toEqual([12, 39])
})
