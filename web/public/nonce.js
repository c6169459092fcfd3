// The server takes no inline style but those with the nonce of the page (Content-Security-Policy).
// Our libraries make a few style elements, some while they are loaded, and have no common way to
// be told of it: so this comes before all of them.
{
  const nonce = document.querySelector('meta[property="csp-nonce"]')?.content ?? ''
  const make = document.createElement.bind(document)
  document.createElement = (name, options) => {
    const made = make(name, options)
    if (made instanceof HTMLStyleElement) made.nonce = nonce
    return made
  }
}
