/**
 * The service worker: a start without a connection, pushes, new versions.
 */
import assert from 'node:assert/strict';
import { createServer, request } from 'node:http';
import { connect } from 'node:net';
import { after, before, test } from 'node:test';

import { launch } from './browser.js';
import { PASSWORD, RealServer, Watch, createChat, messages, register, send, until } from './real.js';

/** @type {import('playwright-core').Browser} */
let browser;
/** @type {RealServer} */
let server;
const watch = new Watch();

before(async () => {
  browser = await launch();
  server = await new RealServer().start();
});
after(async () => {
  await browser?.close();
  await server?.end();
});

/**
 * @param {string} name
 * @param {string} [url]
 */
async function visit(name, url = server.url) {
  const context = await browser.newContext({ permissions: ['notifications'] });
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  watch.follow(page, url);
  await page.goto(url);
  await register(page, name);
  await page.evaluate(() => navigator.serviceWorker.ready.then(() => undefined));
  return { page, context };
}

test('without a connection the app starts with the last chats', async () => {
  const { page, context } = await visit('anna');
  await createChat(page, 'kitchen');
  await send(page, 'kept for later');
  await messages(page).filter({ hasText: 'kept for later' }).waitFor();
  await page.waitForTimeout(300);
  await server.stop();
  await page.goto(server.url);
  await page.getByRole('navigation', { name: 'Chats' }).getByText('kitchen').click();
  await messages(page).filter({ hasText: 'kept for later' }).waitFor();
  await page.getByRole('status').filter({ hasText: 'Offline' }).waitFor();
  await server.start();
  await until(() => page.locator('[role=status]').first().textContent(), (text) => text === '', 40_000);
  await context.close();
});

test('an image that was seen is there without a connection, until the log-out', async () => {
  const { page, context } = await visit('dora');
  await createChat(page, 'album');
  const data = await page.evaluate(() => {
    const canvas = Object.assign(document.createElement('canvas'), { width: 64, height: 48 });
    canvas.getContext('2d')?.fillRect(0, 0, 20, 20);
    return canvas.toDataURL('image/png').split(',')[1];
  });
  await page.locator('input[type=file]').setInputFiles({
    name: 'cat.png', mimeType: 'image/png', buffer: Buffer.from(data, 'base64'),
  });
  await page.getByRole('dialog').getByRole('button', { name: 'Send', exact: true }).click();
  const isShown = () => page.evaluate(() => {
    const image = /** @type {HTMLImageElement | null} */ (document.querySelector('article img[alt="cat.png"]'));
    return Boolean(image && image.naturalWidth === 64);
  });
  await until(isShown, (is) => is);
  const kept = () => page.evaluate(async () => (await caches.keys()).filter((name) => name.startsWith('images ')).length);
  await until(kept, (count) => count === 1);
  await server.stop();
  await page.reload();
  await page.getByRole('status').filter({ hasText: 'Offline' }).waitFor();
  await until(isShown, (is) => is);
  await server.start();
  await until(() => page.locator('[role=status]').first().textContent(), (text) => text === '', 40_000);
  await page.getByRole('button', { name: 'Settings', exact: true }).click();
  await page.getByRole('button', { name: 'Log out', exact: true }).click();
  await page.getByRole('button', { name: 'Log in', exact: true }).waitFor();
  await until(kept, (count) => count === 0);
  await context.close();
});

/**
 * @param {import('playwright-core').BrowserContext} context
 * @param {import('playwright-core').Page} page
 * @param {string} data
 */
async function push(context, page, data) {
  const session = await context.newCDPSession(page);
  const registration = new Promise((resolve) => {
    session.on('ServiceWorker.workerRegistrationUpdated', ({ registrations }) => resolve(registrations.at(-1)));
  });
  await session.send('ServiceWorker.enable');
  const { registrationId } = await registration;
  await session.send('ServiceWorker.deliverPushMessage', { origin: new URL(server.url).origin, registrationId, data });
  await session.detach();
}

/** @param {import('playwright-core').Page} page */
const notifications = (page) => page.evaluate(async () => {
  const registration = await navigator.serviceWorker.ready;
  return (await registration.getNotifications()).map(({ title, body, tag }) => ({ title, body, tag }));
});

/**
 * Pushes, and waits for what is shown. Chromium drops a message of its tools now and then, so it
 * is delivered up to three times; all have the same tag.
 * @param {import('playwright-core').BrowserContext} context
 * @param {import('playwright-core').Page} page
 * @param {string} data
 * @param {string} tag
 */
async function pushed(context, page, data, tag) {
  for (let left = 2; ; left -= 1) {
    await push(context, page, data);
    try {
      return await until(() => notifications(page), (list) => list.some((each) => each.tag === tag), 5_000);
    } catch (error) {
      if (left === 0) throw error;
    }
  }
}

test('a push shows what it says, and always something; a click opens the chat', async () => {
  const { page, context } = await visit('boris');
  await createChat(page, 'club');
  const chat = Number(/#chat=(\d+)/.exec(page.url())?.[1]);
  await page.keyboard.press('Escape');
  await page.goto(server.url);
  const shown = await pushed(context, page, JSON.stringify({
    web_push: 8030,
    notification: {
      title: 'club', body: 'anna: hello', navigate: `${server.url}#chat=${chat}`, tag: 'chat-1', app_badge: 3,
    },
    app_badge: 3,
  }), 'chat-1');
  assert.deepEqual(shown, [{ title: 'club', body: 'anna: hello', tag: 'chat-1' }]);

  // A click that comes while the page still starts is not lost either.
  await page.goto(server.url, { waitUntil: 'domcontentloaded' });
  const worker = context.serviceWorkers()[0];
  await worker.evaluate(async () => {
    const scope = /** @type {any} */ (self);
    const [notification] = await scope.registration.getNotifications();
    scope.dispatchEvent(new scope.NotificationEvent('notificationclick', { notification }));
  });
  await page.getByRole('heading', { name: 'club' }).waitFor();

  await pushed(context, page, 'not JSON at all', 'vestnik');
  await context.close();
});

/**
 * Passes everything on to the server, but for a worker that is another one once `isNew`, and for
 * parts, which are not there while `isGone`.
 * @param {{isNew: boolean, isGone?: boolean}} version
 * @returns {Promise<{url: string, close: () => void}>}
 */
async function proxy(version) {
  const target = { host: '127.0.0.1', port: server.port };
  const front = createServer((incoming, outgoing) => {
    if (version.isGone && incoming.url?.startsWith('/a/')) {
      outgoing.writeHead(404).end();
      return;
    }
    // Whole and not compressed: an answer that only confirms could not be changed.
    const { 'if-none-match': known, 'accept-encoding': encodings, ...headers } = incoming.headers;
    request({ ...target, path: incoming.url, method: incoming.method, headers }, (answer) => {
      if (incoming.url !== '/sw.js' || !version.isNew) {
        outgoing.writeHead(answer.statusCode ?? 500, answer.headers);
        answer.pipe(outgoing);
        return;
      }
      const { 'content-length': length, etag, ...kept } = answer.headers;
      outgoing.writeHead(200, kept);
      answer.on('data', (bytes) => outgoing.write(bytes));
      answer.on('end', () => outgoing.end('\n// another version'));
    }).on('error', () => outgoing.destroy()).end();
  });
  front.on('upgrade', (incoming, socket, head) => {
    const back = connect(target, () => {
      const lines = Object.entries(incoming.headers).map(([name, value]) => `${name}: ${value}`);
      back.write(`GET ${incoming.url} HTTP/1.1\r\n${lines.join('\r\n')}\r\n\r\n`);
      back.write(head);
      back.pipe(socket).pipe(back);
    });
    for (const end of [back, socket]) end.on('error', () => { back.destroy(); socket.destroy(); });
  });
  await new Promise((resolve) => { front.listen(0, '127.0.0.1', () => resolve(null)); });
  const { port } = /** @type {import('node:net').AddressInfo} */ (front.address());
  return { url: `http://127.0.0.1:${port}/`, close: () => { front.close(); front.closeAllConnections(); } };
}

test('a new version waits until it is asked for, or nobody looks', async () => {
  const version = { isNew: false };
  const front = await proxy(version);
  const { page, context } = await visit('carl', front.url);
  await until(() => page.evaluate(() => Boolean(navigator.serviceWorker.controller)), (is) => is);
  const renew = () => page.evaluate(() => navigator.serviceWorker.ready.then((registration) => registration.update()).then(() => undefined));
  await renew();
  const reload = page.getByRole('button', { name: 'Reload' });
  assert.equal(await reload.count(), 0);
  version.isNew = true;
  await renew();
  await reload.waitFor();
  await page.evaluate(() => { Reflect.set(window, 'isOldPage', true); });
  await reload.click();
  await until(() => page.evaluate(() => Reflect.get(window, 'isOldPage') === undefined).catch(() => false), (is) => is);
  await page.getByRole('navigation', { name: 'Chats' }).waitFor();
  assert.equal(await reload.count(), 0);
  await context.close();
  front.close();
});

test('a page of an older version, without a worker, offers to load the new one', async () => {
  const version = { isNew: false, isGone: false };
  const front = await proxy(version);
  const context = await browser.newContext({ serviceWorkers: 'block' });
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  await page.goto(front.url);
  await page.getByRole('button', { name: 'Create an account' }).click();
  await page.getByRole('textbox', { name: 'Name' }).fill('emil');
  await page.getByRole('textbox', { name: 'Password', exact: true }).fill(PASSWORD);
  version.isGone = true;
  await page.getByRole('button', { name: 'Register' }).click();
  assert.equal(await page.getByRole('alert').innerText(), 'There is a new version.');
  await page.getByRole('button', { name: 'Reload' }).waitFor();
  version.isGone = false;
  await page.getByRole('button', { name: 'Reload' }).click();
  await page.getByRole('navigation', { name: 'Chats' }).waitFor();
  await createChat(page, 'attic');
  version.isGone = true;
  await page.getByRole('button', { name: 'Settings', exact: true }).click();
  const line = page.locator('.toast').filter({ hasText: 'There is a new version.' });
  const reload = line.getByRole('button', { name: 'Reload' });
  await reload.waitFor();
  assert.equal(await page.locator('.toast').count(), 1);
  version.isGone = false;
  await reload.click();
  await line.waitFor({ state: 'detached' });
  await page.getByRole('button', { name: 'Settings', exact: true }).click();
  await page.getByRole('dialog', { name: 'Settings' }).waitFor();
  await context.close();
  front.close();
});

test('nothing complained, and no page asked another origin', () => {
  assert.deepEqual(watch.problems, []);
});
