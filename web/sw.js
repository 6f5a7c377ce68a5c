/**
 * The service worker: the app without a connection, and pushes.
 *
 * The parts of one version are in one cache; a new version is another worker with another cache.
 * The page itself comes from the server where there is one, so that a new version shows at once.
 */

// @ts-check
/// <reference lib="webworker" />

const worker = /** @type {ServiceWorkerGlobalScope} */ (/** @type {unknown} */ (self));
const CACHE = 'vestnik %ASSETS%';
/** @type {string[]} */
const ALL_PARTS = JSON.parse('%PARTS%');
/** Large icons are asked for once, by who installs the app. */
const PARTS = ALL_PARTS.filter((part) => !/(180|512)\.png$/.test(part));
/** A server that does not answer the page by then is as good as none. */
const PAGE_LIMIT_MS = 4_000;

worker.addEventListener('install', (event) => {
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(['/', '/manifest.webmanifest', ...PARTS])));
});

worker.addEventListener('activate', (event) => {
  event.waitUntil(removeOld().then(() => worker.clients.claim()));
});

async function removeOld() {
  for (const name of await caches.keys()) {
    if (name !== CACHE && name.startsWith('vestnik ')) await caches.delete(name);
  }
}

worker.addEventListener('message', ({ data }) => {
  if (data === 'activate') worker.skipWaiting();
});

worker.addEventListener('fetch', (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (request.method !== 'GET' || url.origin !== location.origin) return;
  if (request.mode === 'navigate' && url.pathname === '/') event.respondWith(page(request));
  else if (url.pathname.startsWith('/a/')) event.respondWith(part(request));
});

/** @param {Request} request */
async function page(request) {
  const cached = await (await caches.open(CACHE)).match('/');
  const limit = new Promise((resolve) => { setTimeout(resolve, PAGE_LIMIT_MS); });
  const fresh = fetch(request).catch(() => undefined);
  const answer = cached ? await Promise.race([fresh, limit]) : await fresh;
  // A proxy that answers for a server that is down is no page either.
  return answer instanceof Response && answer.status < 500 ? answer : cached ?? Response.error();
}

/** @param {Request} request */
const part = async (request) => (await (await caches.open(CACHE)).match(request)) ?? fetch(request);

worker.addEventListener('push', (event) => {
  event.waitUntil(show(event.data?.text() ?? ''));
});

/**
 * Shows something for every push: browsers take the subscription away from those who do not.
 * @param {string} text
 */
async function show(text) {
  let message;
  try {
    message = JSON.parse(text).notification ?? {};
  } catch {
    message = {};
  }
  const badge = Number(message.app_badge);
  const { setAppBadge } = /** @type {any} */ (worker.navigator);
  if (Number.isInteger(badge)) setAppBadge?.call(worker.navigator, badge).catch(() => undefined);
  await worker.registration.showNotification(String(message.title ?? location.host), {
    body: String(message.body ?? ''),
    tag: String(message.tag ?? 'vestnik'),
    icon: '%ASSETS%/icons/icon-192.png',
    badge: '%ASSETS%/icons/badge-96.png',
    data: { chat: chatOf(message.navigate) },
  });
}

/** @param {unknown} address */
const chatOf = (address) => Number(/#chat=(\d{1,10})$/.exec(String(address))?.[1] ?? 0);

worker.addEventListener('notificationclick', (event) => {
  event.notification.close();
  event.waitUntil(open(Number(event.notification.data?.chat ?? 0)));
});

/** @param {number} chat */
async function open(chat) {
  const tabs = await worker.clients.matchAll({ type: 'window', includeUncontrolled: true });
  const tab = tabs.find(({ focused }) => focused) ?? tabs[0];
  if (!tab) {
    await worker.clients.openWindow(chat ? `/#chat=${chat}` : '/');
    return;
  }
  await tab.focus().catch(() => undefined);
  if (chat) tab.postMessage({ kind: 'open', chat });
}
