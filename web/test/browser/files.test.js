/**
 * Files: photos drawn anew, what is never opened as a document, a large file over a server's end.
 */
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { launch } from './browser.js';
import { RealServer, Watch, createChat, joinChat, messages, register, until } from './real.js';

/** @type {import('playwright-core').Browser} */
let browser;
/** @type {RealServer} */
let server;
/** @type {import('playwright-core').Page} */
let a;
/** @type {import('playwright-core').Page} */
let b;
const watch = new Watch();

before(async () => {
  browser = await launch();
  server = await new RealServer().start();
  [a, b] = await Promise.all([visit(), visit()]);
  await register(a, 'anna');
  await createChat(a, 'photos');
  await register(b, 'boris');
  await joinChat(b, 'photos');
});
after(async () => {
  await browser?.close();
  await server?.end();
});

async function visit() {
  const page = await (await browser.newContext({ acceptDownloads: true })).newPage();
  page.setDefaultTimeout(15_000);
  watch.follow(page, server.url);
  await page.goto(server.url);
  return page;
}

/** @param {{name: string, mimeType: string, buffer: Buffer} | string} file or its path */
async function attach(file) {
  await a.locator('input[type=file]').setInputFiles(file, { timeout: 60_000 });
  const dialog = a.getByRole('dialog', { name: 'Send file' });
  await dialog.getByRole('button', { name: 'Send', exact: true }).click();
}

/**
 * @param {import('playwright-core').Page} page
 * @param {string} name
 */
async function saved(page, name) {
  const link = messages(page).getByRole('button', { name }).or(messages(page).getByRole('link', { name })).first();
  const [download] = await Promise.all([page.waitForEvent('download', { timeout: 60_000 }), link.click()]);
  // The browser replaces what a file system does not take.
  assert.equal(download.suggestedFilename(), name.replace(/[<>":/\\|?*]/g, '_'));
  return readFileSync(await download.path());
}

test('a photo is drawn anew at up to 1600 px, and shown at its size', async () => {
  const data = await a.evaluate(async () => {
    const canvas = Object.assign(document.createElement('canvas'), { width: 3200, height: 2400 });
    const context = canvas.getContext('2d');
    context?.fillRect(0, 0, 100, 100);
    return canvas.toDataURL('image/jpeg').split(',')[1];
  });
  await attach({ name: 'holiday.jpg', mimeType: 'image/jpeg', buffer: Buffer.from(data, 'base64') });
  const image = messages(b).getByRole('img', { name: 'holiday.jpg' });
  await image.waitFor();
  await b.waitForFunction(() => /** @type {HTMLImageElement} */ (document.querySelector('article img[alt="holiday.jpg"]'))?.naturalWidth > 0);
  const size = await image.evaluate((node) => [Reflect.get(node, 'naturalWidth'), Reflect.get(node, 'naturalHeight')]);
  assert.deepEqual(size, [1600, 1200]);
  assert.match(await image.getAttribute('src') ?? '', /^blob:/);
});

const DOCUMENTS = [
  ['page.html', 'text/html', '<script>window.opener.pwned=1</script>'],
  ['drawing.svg', 'image/svg+xml', '<svg xmlns="http://www.w3.org/2000/svg"><script>window.pwned=1</script></svg>'],
  ['"><img src=x>.txt', 'text/plain', 'text'],
];

for (const [name, mimeType, text] of DOCUMENTS) {
  test(`${name} is saved, never opened`, async () => {
    await attach({ name, mimeType, buffer: Buffer.from(text) });
    await messages(b).filter({ hasText: name }).first().waitFor();
    assert.equal(await messages(b).getByRole('img', { name, exact: true }).count(), 0);
    const pages = b.context().pages().length;
    const bytes = await saved(b, name);
    assert.equal(bytes.toString(), text);
    assert.equal(b.context().pages().length, pages);
    assert.equal(await b.evaluate(() => Reflect.get(window, 'pwned')), undefined);
  });
}

test('a file of 25 MiB goes on after the server was killed in the middle', async () => {
  const buffer = randomBytes(25 * 1024 * 1024);
  const path = join(server.folder, 'film.bin');
  writeFileSync(path, buffer);
  let sent = 0;
  const count = (/** @type {import('playwright-core').WebSocket} */ socket) => {
    socket.on('framesent', ({ payload }) => { sent += payload.length; });
  };
  a.on('websocket', count);
  // A new connection, so that what it sends is counted.
  await a.reload();
  await messages(a).first().waitFor();
  await attach(path);
  for (const part of [0.2, 0.5]) {
    await until(async () => sent, (bytes) => bytes > part * buffer.length, 60_000);
    await server.stop();
    await server.start();
  }
  await messages(b).filter({ hasText: 'film.bin' }).first().waitFor({ timeout: 90_000 });
  const bytes = await saved(b, 'film.bin');
  const digest = (/** @type {Buffer} */ all) => createHash('sha256').update(all).digest('hex');
  assert.equal(digest(bytes), digest(buffer));
});

test('nothing complained, and no page asked another origin', () => {
  assert.deepEqual(watch.problems, []);
});
