import { defineConfig } from '@hey-api/openapi-ts'

/** The shapes of the REST API, from the document that the server's own tests keep true. Made in the build, never committed. */
export default defineConfig({
  input: '../openapi/fleetwire.json',
  output: { path: 'src/api/generated', postProcess: [] },
  plugins: ['@hey-api/typescript'],
  logs: { file: false, level: 'warn' },
})
