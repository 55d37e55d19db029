interface TrustedTypes {
  createPolicy(name: string, rules: { createScriptURL: (url: string) => string }): { createScriptURL(url: string): string }
}

const WORKER = '/service-worker.js'

let isAsked = false

/** Has the browser keep the pages for when the gateway cannot be reached. Pages without TLS, but on loopback, have no such worker. */
export function keepOffline(): void {
  // A policy can be made once in a page.
  if (isAsked || !navigator.serviceWorker || !import.meta.env.PROD) return
  isAsked = true
  // The policy of these pages lets this one text become a script's address, and no other.
  const { trustedTypes } = window as { trustedTypes?: TrustedTypes }
  const policy = trustedTypes?.createPolicy('surety', { createScriptURL: () => WORKER })
  void navigator.serviceWorker.register(policy?.createScriptURL(WORKER) ?? WORKER).catch(() => undefined)
}
