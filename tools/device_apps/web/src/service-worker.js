/** Keeps the page and its bundles for when there is no network. The build puts in VERSION and FILES. */

const BUNDLES = 'edgekit-bundles';

self.addEventListener('install', (event) => {
  event.waitUntil((async () => {
    await (await caches.open(VERSION)).addAll(['./', ...FILES.filter((file) => file !== 'index.html')]);
    await self.skipWaiting();
  })());
});

self.addEventListener('activate', (event) => {
  event.waitUntil((async () => {
    const old = (await caches.keys()).filter((name) => name.startsWith('edgekit-') && name !== VERSION && name !== BUNDLES);
    await Promise.all(old.map((name) => caches.delete(name)));
    await self.clients.claim();
  })());
});

self.addEventListener('fetch', (event) => {
  const url = new URL(event.request.url);
  if (event.request.method !== 'GET' || url.origin !== location.origin) return;
  event.respondWith(url.pathname.endsWith('.zip') ? newest(event.request) : kept(event.request));
});

/** The page's own files: as they were built together. */
async function kept(request) {
  const found = await (await caches.open(VERSION)).match(request, { ignoreSearch: true });
  return found ?? fetch(request);
}

/** A bundle: the one that is there now, or the one that was there when there was a network. */
async function newest(request) {
  const cache = await caches.open(BUNDLES);
  try {
    const response = await fetch(request);
    if (response.ok) await cache.put(request, response.clone());
    return response;
  } catch (error) {
    const found = await cache.match(request);
    if (!found) throw error;
    return found;
  }
}
