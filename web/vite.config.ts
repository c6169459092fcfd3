import { fileURLToPath, URL } from 'node:url'
import ui from '@nuxt/ui/vite'
import vue from '@vitejs/plugin-vue'
import { defineConfig } from 'vitest/config'

const at = (path: string) => fileURLToPath(new URL(path, import.meta.url))

// Where `npm run dev` finds a server: the real one or the mock of web/mock.
const server = process.env.FLEETWIRE_URL ?? 'http://127.0.0.1:8080'

export default defineConfig({
  plugins: [
    vue(),
    ui({
      autoImport: false,
      components: { dts: '.nuxt-ui/components.d.ts' },
      colorMode: true,
      // Every icon the sources name is in the bundle: nothing is loaded from another host (interfaces.md 5).
      icon: { clientBundle: { scan: { globInclude: ['src/**/*.{vue,ts}'] } } },
      ui: {
        colors: { primary: 'indigo', secondary: 'violet', success: 'emerald', info: 'sky', warning: 'amber', error: 'rose', neutral: 'zinc' },
        button: { slots: { base: 'cursor-pointer' } },
        card: { slots: { root: 'rounded-lg' } },
      },
    }),
  ],
  resolve: { alias: { '@': at('./src') } },
  define: {
    __VUE_OPTIONS_API__: 'false',
    __VUE_I18N_FULL_INSTALL__: 'true',
    __VUE_I18N_LEGACY_API__: 'false',
    __INTLIFY_PROD_DEVTOOLS__: 'false',
  },
  build: {
    outDir: at('../src/fleetwire/server/api/static/console'),
    emptyOutDir: true,
    target: 'es2022',
    // A strict Content-Security-Policy: nothing becomes a data: URL, nothing is inline in the page.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 900,
  },
  server: { proxy: { '/api': server } },
  test: { environment: 'node', include: ['src/**/*.test.ts'] },
})
