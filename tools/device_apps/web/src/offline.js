/** After the first visit the page works without a network. */

const BUNDLES = 'edgekit-bundles';

/** Whether the page will work offline from now on. Browsers have service workers on https and on localhost only.
 * @param {URL} bundle the one that the page starts with
 * @returns {Promise<boolean>} */
export async function keepOffline(bundle) {
  if (!navigator.serviceWorker) return false;
  await navigator.serviceWorker.register('service-worker.js');
  await navigator.serviceWorker.ready;
  // The first visit fetched it before anybody listened.
  const cache = await caches.open(BUNDLES);
  if (!(await cache.match(bundle))) await cache.add(bundle).catch(() => {});
  return true;
}
