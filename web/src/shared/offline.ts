import { scriptAddress, SERVICE_WORKER } from './scripts'

let isAsked = false

/** Has the browser keep the pages for when the gateway cannot be reached. Pages without TLS, but on loopback, have no such worker. */
export function keepOffline(): void {
  if (isAsked || !navigator.serviceWorker || !import.meta.env.PROD) return
  isAsked = true
  void navigator.serviceWorker.register(scriptAddress(SERVICE_WORKER)).catch(() => undefined)
}
