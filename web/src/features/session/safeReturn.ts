/** Where to go after the sign-in: a path of this console, never another site. */
export function safeReturn(to: unknown, home: string): string {
  if (typeof to !== 'string' || !to.startsWith('/') || /^\/[/\\]/.test(to)) return home
  return to
}
