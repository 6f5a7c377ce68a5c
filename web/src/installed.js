/**
 * The installed app: service worker, new versions, pushes and the badge.
 */

import { effect } from './view.js';

/** @typedef {import('./types.js').Store & {loadUpdate: () => Promise<void>}} Client */

const WORKER = '/sw.js';

/** The only script URL that the content security policy allows as a worker. */
function workerUrl() {
  const { trustedTypes } = /** @type {any} */ (globalThis);
  if (!trustedTypes) return WORKER;
  const policy = trustedTypes.createPolicy('sw', {
    createScriptURL: (/** @type {string} */ url) => {
      if (url !== WORKER) throw new TypeError(`not a worker: ${url}`);
      return url;
    },
  });
  return policy.createScriptURL(WORKER);
}

/** @param {Client} client */
export async function install(client) {
  showBadge(client);
  if (!('serviceWorker' in navigator)) return;
  try {
    const registration = await navigator.serviceWorker.register(workerUrl(), { updateViaCache: 'none' });
    watchUpdates(client, registration);
    keepSubscription(client, registration);
  } catch (error) {
    console.warn('no service worker:', error);
  }
}

/** @param {Client} client */
function showBadge(client) {
  effect(() => {
    const unread = client.chats.value.filter((chat) => chat.unread > 0).length;
    const { setAppBadge, clearAppBadge } = /** @type {any} */ (navigator);
    const shown = unread > 0 ? setAppBadge?.call(navigator, unread) : clearAppBadge?.call(navigator);
    shown?.catch(() => undefined);
  });
}

/**
 * Activates a new version on request, or when the page is hidden and nothing is being written.
 * @param {Client} client
 * @param {ServiceWorkerRegistration} registration
 */
function watchUpdates(client, registration) {
  // The page was just loaded, so it is as new as a worker that waits already.
  registration.waiting?.postMessage('activate');
  registration.addEventListener('updatefound', () => {
    const worker = registration.installing;
    worker?.addEventListener('statechange', () => {
      if (worker.state === 'installed' && navigator.serviceWorker.controller) client.update.value ||= true;
    });
  });
  client.loadUpdate = async () => {
    navigator.serviceWorker.addEventListener('controllerchange', () => location.reload());
    if (registration.waiting) registration.waiting.postMessage('activate');
    else location.reload();
  };
  document.addEventListener('visibilitychange', () => {
    if (document.hidden && client.update.peek() && isIdle(client)) client.loadUpdate();
    if (!document.hidden) registration.update().catch(() => undefined);
  });
}

/** @param {Client} client */
const isIdle = (client) => client.chats.peek().every((chat) =>
  chat.draft === '' && chat.lastMessage?.state !== 'sending' && chat.lastMessage?.state !== 'failed')
  && document.querySelector('dialog[open]') === null;

/**
 * Sends the push subscription once per session, since it belongs to a session.
 * @param {Client} client
 * @param {ServiceWorkerRegistration} registration
 */
function keepSubscription(client, registration) {
  let sentFor = 0;
  effect(() => {
    const me = client.me.value?.id ?? 0;
    const isReady = client.connection.value === 'online' && client.server.value?.pushKey;
    if (!me || !isReady || sentFor === me) return;
    sentFor = me;
    sendSubscription(client, registration).catch(() => undefined);
  });
}

/**
 * @param {Client} client
 * @param {ServiceWorkerRegistration} registration
 */
async function sendSubscription(client, registration) {
  const subscription = await registration.pushManager?.getSubscription();
  if (!subscription) return;
  const key = (/** @type {PushEncryptionKeyName} */ name) =>
    new Uint8Array(/** @type {ArrayBuffer} */ (subscription.getKey(name)));
  await client.actions.subscribePush({
    endpoint: subscription.endpoint, p256dh: key('p256dh'), auth: key('auth'),
  });
}

/** Ends the pushes of this browser, at the log-out. */
export async function forgetPush() {
  const registration = await navigator.serviceWorker?.getRegistration();
  const subscription = await registration?.pushManager?.getSubscription();
  await subscription?.unsubscribe();
}
