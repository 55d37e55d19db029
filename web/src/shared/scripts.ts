/** The scripts of this build that run beside a page. By the policy of these pages (Trusted Types) their addresses become scripts, and no other text. */
interface TrustedTypes {
  createPolicy(name: string, rules: { createScriptURL: (url: string) => string }): { createScriptURL(url: string): string }
}

export const SERVICE_WORKER = '/service-worker.js'
const OWN = /^\/(?:service-worker|assets\/[\w-]+)\.js$/

let policy: ReturnType<TrustedTypes['createPolicy']> | undefined

function own(url: string): string {
  if (!OWN.test(url)) throw new TypeError(`${url} is no script of these pages`)
  return url
}

/** What a browser takes as the address of a script. */
export function scriptAddress(path: string): string {
  // While pages are developed there is no policy, and files have other names.
  if (!import.meta.env.PROD) return path
  // It can be made once in a page.
  policy ??= (window as { trustedTypes?: TrustedTypes }).trustedTypes?.createPolicy('surety', { createScriptURL: own })
  return policy?.createScriptURL(path) ?? own(path)
}
