// Keeps the pages for when the gateway cannot be reached. What the gateway answers under /v1 is never kept here.
const CACHE = 'pages-__VERSION__'
const PATHS = __PATHS__
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
