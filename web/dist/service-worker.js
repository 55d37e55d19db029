// Keeps the pages for when the gateway cannot be reached. What the gateway answers under /v1 is never kept here.
const CACHE = 'pages-7bc5714684208e6496d611314d6559b8'
const PATHS = ["/assets/Bars-B7HovCHc.css","/assets/Bars-Do3cu7WR.js","/assets/Choice-BRvxn8SA.css","/assets/Choice-tTiVd6xc.js","/assets/CopyButton-C2LvSFMf.js","/assets/Dialog-BQXvMuXM.js","/assets/Dialog-vvW28Yy5.css","/assets/KaTeX_AMS-Regular-BQhdFMY1.woff2","/assets/KaTeX_Caligraphic-Bold-Dq_IR9rO.woff2","/assets/KaTeX_Caligraphic-Regular-Di6jR-x-.woff2","/assets/KaTeX_Fraktur-Bold-CL6g_b3V.woff2","/assets/KaTeX_Fraktur-Regular-CTYiF6lA.woff2","/assets/KaTeX_Main-Bold-Cx986IdX.woff2","/assets/KaTeX_Main-BoldItalic-DxDJ3AOS.woff2","/assets/KaTeX_Main-Italic-NWA7e6Wa.woff2","/assets/KaTeX_Main-Regular-B22Nviop.woff2","/assets/KaTeX_Math-BoldItalic-CZnvNsCZ.woff2","/assets/KaTeX_Math-Italic-t53AETM-.woff2","/assets/KaTeX_SansSerif-Bold-D1sUS0GD.woff2","/assets/KaTeX_SansSerif-Italic-C3H0VqGB.woff2","/assets/KaTeX_SansSerif-Regular-DDBCnlJ7.woff2","/assets/KaTeX_Script-Regular-D3wIWfF6.woff2","/assets/KaTeX_Size1-Regular-mCD8mA8B.woff2","/assets/KaTeX_Size2-Regular-Dy4dx90m.woff2","/assets/KaTeX_Size3-Regular-gV2CO0n9.woff2","/assets/KaTeX_Size4-Regular-Dl5lxZxV.woff2","/assets/KaTeX_Typewriter-Regular-CO6r4hn1.woff2","/assets/Key-B5HCabJt.js","/assets/State-3BE0qK6M.css","/assets/State-BQ-Dew52.js","/assets/Still-CJIVjyzy.js","/assets/Table-Bqvo9SbA.js","/assets/Table-C24T8RRL.css","/assets/Told-CUjMjRMX.js","/assets/amounts-B5CvMehi.js","/assets/chat-DSQjYoXF.js","/assets/chat-DiwHsGQg.css","/assets/economics-BpGAKzdx.js","/assets/economics-LxlX_QaD.css","/assets/explorer-CoHhryRC.css","/assets/explorer-kvUs-Fsf.js","/assets/governance-B8rxvVYj.js","/assets/governance-m477o4M_.css","/assets/katex-BYLiqMcl.js","/assets/katex-DF6jnMcS.css","/assets/key-D0FCSKZF.js","/assets/keys-CJNt56Ap.js","/assets/keys-pYJXKpTM.css","/assets/languages-49YFutHT.js","/assets/models-DwhNjDs2.js","/assets/network-BZZK8DGz.css","/assets/network-DtlJjapL.js","/assets/powers-5p33C-PS.js","/assets/powers-B4AnlRGE.css","/assets/status-CesWk09v.css","/assets/status-DyPGd_JY.js","/assets/theme-BZ1vCqUy.css","/assets/theme-iY96nTua.js","/assets/verifier-BZC533XA.wasm","/assets/verifier-iU40S4uh.js","/assets/verify-CQCClCAh.js","/assets/verify-CnTRGXb2.js","/assets/verify-D2qoZMMa.css","/assets/worker-eprPSYJ3.js","/economics","/explorer","/governance","/icon.svg","/","/keys","/manifest.webmanifest","/network","/powers","/status","/theme.js","/verify"]
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
