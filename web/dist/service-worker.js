// Keeps the pages for when the gateway cannot be reached. What the gateway answers under /v1 is never kept here.
const CACHE = 'pages-717d4a5f6581008c1ecafa04d1680718'
const PATHS = ["/assets/KaTeX_AMS-Regular-BQhdFMY1.woff2","/assets/KaTeX_Caligraphic-Bold-Dq_IR9rO.woff2","/assets/KaTeX_Caligraphic-Regular-Di6jR-x-.woff2","/assets/KaTeX_Fraktur-Bold-CL6g_b3V.woff2","/assets/KaTeX_Fraktur-Regular-CTYiF6lA.woff2","/assets/KaTeX_Main-Bold-Cx986IdX.woff2","/assets/KaTeX_Main-BoldItalic-DxDJ3AOS.woff2","/assets/KaTeX_Main-Italic-NWA7e6Wa.woff2","/assets/KaTeX_Main-Regular-B22Nviop.woff2","/assets/KaTeX_Math-BoldItalic-CZnvNsCZ.woff2","/assets/KaTeX_Math-Italic-t53AETM-.woff2","/assets/KaTeX_SansSerif-Bold-D1sUS0GD.woff2","/assets/KaTeX_SansSerif-Italic-C3H0VqGB.woff2","/assets/KaTeX_SansSerif-Regular-DDBCnlJ7.woff2","/assets/KaTeX_Script-Regular-D3wIWfF6.woff2","/assets/KaTeX_Size1-Regular-mCD8mA8B.woff2","/assets/KaTeX_Size2-Regular-Dy4dx90m.woff2","/assets/KaTeX_Size3-Regular-gV2CO0n9.woff2","/assets/KaTeX_Size4-Regular-Dl5lxZxV.woff2","/assets/KaTeX_Typewriter-Regular-CO6r4hn1.woff2","/assets/chat-DaVDndPl.js","/assets/chat-DfB8sSXp.css","/assets/katex-BYLiqMcl.js","/assets/katex-DF6jnMcS.css","/assets/languages-49YFutHT.js","/icon.svg","/","/manifest.webmanifest","/theme.js"]
// The gateway tells programs at `/` how to use it; whoever asks for HTML gets the page.
const HTML = { headers: { accept: 'text/html' } }

async function keep() {
  const cache = await caches.open(CACHE)
  await cache.addAll(PATHS.map((path) => new Request(path, HTML)))
}

async function forget() {
  for (const name of await caches.keys()) if (name !== CACHE) await caches.delete(name)
  await self.clients.claim()
}

async function page(request) {
  const { pathname } = new URL(request.url)
  try {
    const response = await fetch(request)
    if (response.ok) return response
    return (await caches.match(pathname, { ignoreVary: true })) ?? response
  } catch (error) {
    const kept = await caches.match(pathname, { ignoreVary: true })
    if (kept) return kept
    throw error
  }
}

async function file(request) {
  return (await caches.match(request, { ignoreVary: true })) ?? fetch(request)
}

self.addEventListener('install', (event) => event.waitUntil(keep()))
self.addEventListener('activate', (event) => event.waitUntil(forget()))
self.addEventListener('fetch', (event) => {
  const { request } = event
  const url = new URL(request.url)
  if (request.method !== 'GET' || url.origin !== location.origin || !PATHS.includes(url.pathname)) return
  event.respondWith(url.pathname.startsWith('/assets/') ? file(request) : page(request))
})
