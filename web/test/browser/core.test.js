/**
 * The core in a real browser against the real server: what breaks, what is offline, tabs, links.
 */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { launch } from './browser.js';
import {
  PASSWORD, RealServer, Watch, createChat, joinChat, logIn, messages, register, send, stored, until,
} from './real.js';

const KILLS = Number(process.env.KILLS ?? 25);

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

let lastName = 0;
/** @param {string} name */
const fresh = (name) => `${name}${(lastName += 1)}`;

/** @param {import('playwright-core').BrowserContextOptions} [options] */
async function visitor(options) {
  const context = await browser.newContext(options);
  return context;
}

/** @param {import('playwright-core').BrowserContext} context */
async function open(context, url = server.url) {
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  watch.follow(page, url);
  await page.goto(url);
  return page;
}

/** Two people in one chat. */
async function pair() {
  const [anna, boris, chat] = [fresh('anna'), fresh('boris'), fresh('kitchen')];
  const contexts = [await visitor(), await visitor()];
  const [a, b] = [await open(contexts[0]), await open(contexts[1])];
  await register(a, anna);
  await createChat(a, chat);
  await register(b, boris);
  await joinChat(b, chat);
  return { a, b, anna, boris, chat, contexts, close: () => Promise.all(contexts.map((each) => each.close())) };
}

test('two people talk', async () => {
  const { a, b, anna, close } = await pair();
  await send(a, 'hello there');
  const article = messages(b).filter({ hasText: 'hello there' });
  await article.waitFor();
  assert.match(await article.getAttribute('aria-label') ?? await article.innerText(), new RegExp(anna));
  await send(b, 'hello back');
  await messages(a).filter({ hasText: 'hello back' }).waitFor();
  await close();
});

test('history loads above while it is scrolled, without a jump, and a page at rest does nothing', async () => {
  const own = await new RealServer().start();
  await own.stop();
  own.command('load', 'prepare', '--users', '1', '--messages', '300');
  await own.start();
  const context = await visitor();
  const page = await open(context, own.url);
  await logIn(page, 'load0', 'load-password');
  await page.getByRole('link', { name: /^load/ }).click();
  const log = page.getByRole('log', { name: 'Messages' });
  await messages(page).first().waitFor();
  let worst = 0;
  const seen = new Set();
  await until(async () => {
    const { moved, ids, isTop } = await log.evaluate(async (scroller) => {
      const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));
      const articles = () => [...scroller.querySelectorAll('article')];
      const { top } = scroller.getBoundingClientRect();
      const shown = articles().find((one) => one.getBoundingClientRect().bottom > top + 10);
      const [place, before] = [shown?.getBoundingClientRect().top ?? 0, scroller.scrollTop];
      scroller.scrollTop -= 200;
      const by = before - scroller.scrollTop;
      for (let wait = 0; wait < 6; wait += 1) await frame();
      const at = shown?.isConnected ? shown.getBoundingClientRect().top : place + by;
      return {
        moved: Math.abs(at - place - by), isTop: scroller.scrollTop === 0,
        ids: articles().map((one) => one.dataset.key),
      };
    });
    worst = Math.max(worst, moved);
    ids.forEach((id) => seen.add(id));
    return isTop && seen.size;
  }, (count) => count >= 300, 60_000);
  assert.ok(worst <= 2, `what was shown moved by ${worst} px`);
  const frames = await page.evaluate(async () => {
    const original = window.requestAnimationFrame;
    let asked = 0;
    window.requestAnimationFrame = (callback) => {
      asked += 1;
      return original(callback);
    };
    await new Promise((resolve) => { setTimeout(resolve, 1000); });
    window.requestAnimationFrame = original;
    return asked;
  });
  assert.ok(frames < 5, `${frames} frames asked for in a second of rest`);
  await context.close();
  await own.end();
});

test('a direct chat says that the other user is disabled, at once and after a reload', async () => {
  const { a, boris, close } = await pair();
  await joinChat(a, boris);
  const about = a.locator('.head-about');
  await about.filter({ hasText: 'online' }).waitFor();
  server.command('user', 'disable', boris);
  await about.filter({ hasText: 'disabled' }).waitFor();
  await a.reload();
  await about.filter({ hasText: 'disabled' }).waitFor();
  server.command('user', 'enable', boris);
  await a.reload();
  await about.filter({ hasNotText: 'disabled' }).waitFor();
  await close();
});

test(`the server is killed ${KILLS} times in the middle of sends: nothing is lost or doubled`, async () => {
  const { a, b, close } = await pair();
  let count = 0;
  for (let round = 0; round < KILLS; round += 1) {
    const kill = new Promise((resolve) => { setTimeout(resolve, Math.random() * 150); }).then(() => server.stop());
    for (let each = 0; each < 4; each += 1) {
      await Promise.all([send(a, `from a ${count}`), send(b, `from b ${count}`)]);
      count += 1;
    }
    await kill;
    await server.start();
    for (const page of [a, b]) await until(() => page.locator('[role=status]').first().textContent(), (text) => text === '', 40_000);
  }
  const expected = Array.from({ length: count }, (_, index) => index);
  for (const page of [a, b]) {
    const { messages: list } = await until(() => stored(page),
      (now) => now.outbox === 0 && now.messages.length >= 2 * count, 60_000);
    for (const who of ['a', 'b']) {
      const numbers = list.sort((x, y) => x.id - y.id).filter(({ text }) => text.startsWith(`from ${who}`))
        .map(({ text }) => Number(text.slice(7)));
      assert.deepEqual(numbers, expected, `messages of ${who}`);
    }
  }
  const shown = await messages(b).evaluateAll((nodes) => nodes.map((node) => /from [ab] \d+/.exec(node.textContent ?? '')?.[0]));
  assert.equal(new Set(shown).size, shown.length, 'nothing is shown twice');
  assert.ok(shown.length >= 40);
  assert.equal(await a.getByText('Sending…').count(), 0);
  await close();
});

test('what is written offline is sent after the tab was closed and opened again', async () => {
  const { a, b, contexts, close } = await pair();
  await contexts[0].setOffline(true);
  await server.stop();
  await send(a, 'written offline 1');
  await send(a, 'written offline 2');
  await messages(a).filter({ hasText: 'Sending…' }).first().waitFor();
  await until(() => stored(a), ({ outbox }) => outbox === 2);
  await a.close();
  await server.start();
  await contexts[0].setOffline(false);
  const again = await open(contexts[0]);
  await again.getByRole('navigation', { name: 'Chats' }).waitFor();
  await messages(b).filter({ hasText: 'written offline 2' }).waitFor();
  const texts = await messages(b).evaluateAll((nodes) => nodes.map((node) => /written offline \d/.exec(node.textContent ?? '')?.[0]).filter(Boolean));
  assert.deepEqual(texts, ['written offline 1', 'written offline 2']);
  await close();
});

test('a page that closes at once loses neither the message that was sent nor the draft', async () => {
  const { a, b, contexts, close } = await pair();
  const address = a.url();
  let page = a;
  for (let n = 0; n < 5; n += 1) {
    await send(page, `sent and closed ${n}.`);
    await page.close();
    page = await open(contexts[0], address);
    for (const each of [page, b]) {
      const article = messages(each).filter({ hasText: `sent and closed ${n}.` });
      await article.waitFor();
      assert.equal(await article.count(), 1);
    }
  }
  const box = page.getByRole('textbox', { name: 'Message', exact: true });
  assert.equal(await box.inputValue(), '');
  await box.fill('half a thought');
  await page.reload();
  await until(() => box.inputValue(), (text) => text === 'half a thought');
  await close();
});

test('what is new is below a line, at a first visit, after scrolling, and after a way back', async () => {
  const { a, b, boris, chat, close } = await pair();
  await b.close();
  for (let n = 0; n < 30; n += 1) await send(a, `news ${n}.`);
  await until(() => stored(a), ({ outbox }) => outbox === 0);
  const context = await visitor();
  const page = await open(context);
  await logIn(page, boris);
  const link = page.getByRole('navigation', { name: 'Chats' }).getByRole('link', { name: chat });
  await link.click();
  const line = page.getByRole('separator', { name: 'New messages', exact: true });
  const below = () => line.evaluate((element) => element.nextElementSibling?.textContent ?? '');
  await line.waitFor();
  assert.match(await below(), /news 0\./);
  const log = page.getByRole('log', { name: 'Messages' });
  for (const place of [1, 0]) {
    await log.evaluate((element, at) => { element.scrollTop = at * element.scrollHeight; }, place);
    await page.waitForTimeout(300);
  }
  assert.match(await below(), /news 0\./);
  await page.getByRole('button', { name: /^Jump to newest/ }).click();
  await link.filter({ hasNotText: 'unread' }).waitFor();
  await page.goBack();
  await send(a, 'later');
  await page.getByRole('link', { name: `${chat} 1 unread`, exact: true }).click();
  await line.waitFor();
  assert.match(await below(), /later/);
  await context.close();
  await close();
});

test('an address of a chat opens it after a first login', async () => {
  const { a, anna, close } = await pair();
  await send(a, 'read me');
  // It depends on the moment whether the page or the connection is there first.
  for (const start of ['', '', '', a.url()]) {
    const context = await visitor();
    const page = await open(context, start || server.url);
    await logIn(page, anna);
    if (start === '') {
      await page.goto('about:blank');
      await page.goto(a.url());
    }
    await messages(page).filter({ hasText: 'read me' }).waitFor();
    await context.close();
  }
  await close();
});

test('in a new browser an operator sees the chats, those without messages last, and no first steps', async () => {
  const { a, anna, chat, close } = await pair();
  await send(a, 'a message');
  const empty = fresh('empty');
  await createChat(a, empty);
  server.command('user', 'set', anna, '--operator', 'on');
  // It depends on the moment whether the first screen or the chats are there first.
  for (let n = 0; n < 3; n += 1) {
    const context = await visitor();
    const page = await open(context);
    await logIn(page, anna);
    const links = page.getByRole('navigation', { name: 'Chats' }).getByRole('link');
    await until(() => links.allInnerTexts(), (texts) => texts.length === 2 && texts[0].includes(chat));
    await page.waitForTimeout(500);
    assert.deepEqual((await links.allInnerTexts()).map((text) => text.includes(empty)), [false, true]);
    assert.equal(await page.getByText('Welcome to your server').count(), 0);
    await context.close();
  }
  await close();
});

test('the status says at once that the network is gone', async () => {
  const { a, contexts, close } = await pair();
  await contexts[0].setOffline(true);
  const status = a.getByRole('status').filter({ hasText: 'Offline: messages will be sent when you are back' });
  await status.waitFor({ timeout: 3_000 });
  await contexts[0].setOffline(false);
  await status.waitFor({ state: 'detached' });
  await close();
});

test('the status says when the server is gone, and nothing when it is back', async () => {
  const { a, close } = await pair();
  await server.stop();
  await a.getByRole('status').filter({ hasText: 'Offline: messages will be sent when you are back' }).waitFor();
  await server.start();
  await until(() => a.locator('[role=status]').first().textContent(), (text) => text === '');
  await close();
});

test('two tabs share one connection; the second takes over when the first closes', async () => {
  const { a, b, chat, contexts, close } = await pair();
  const second = await open(contexts[0]);
  await second.getByRole('navigation', { name: 'Chats' }).getByText(chat).click();
  await send(b, 'to both tabs');
  await messages(a).filter({ hasText: 'to both tabs' }).waitFor();
  await messages(second).filter({ hasText: 'to both tabs' }).waitFor();
  await send(second, 'from the second');
  await messages(a).filter({ hasText: 'from the second' }).waitFor();
  assert.equal(await messages(a).filter({ hasText: 'from the second' }).count(), 1);
  await a.close();
  await send(b, 'to the second');
  await messages(second).filter({ hasText: 'to the second' }).waitFor();
  await send(second, 'from the second again');
  await messages(b).filter({ hasText: 'from the second again' }).waitFor();
  assert.equal(await messages(b).filter({ hasText: 'from the second again' }).count(), 1);
  await close();
});

/** Counts, in each frame, messages that are shown twice, and elements of messages that went. */
function watchMessages() {
  const log = document.querySelector('[role=log]');
  window.seen = { twice: 0, removed: 0 };
  new MutationObserver((changes) => {
    const removed = changes.flatMap(({ removedNodes }) => [...removedNodes]);
    window.seen.removed += removed.filter(({ nodeName }) => nodeName === 'ARTICLE').length;
  }).observe(log, { subtree: true, childList: true });
  const look = () => {
    const texts = [...log.querySelectorAll('article')].map((node) => /mine \d+\./.exec(node.textContent)?.[0]);
    window.seen.twice += texts.length - new Set(texts).size;
    requestAnimationFrame(look);
  };
  look();
}

test('own messages are shown once in each tab, by one element', async () => {
  const { a, contexts, close } = await pair();
  await send(a, 'first');
  const second = await open(contexts[0], a.url());
  for (const page of [a, second]) {
    await messages(page).filter({ hasText: 'first' }).waitFor();
    await page.waitForTimeout(300);
    await page.evaluate(watchMessages);
  }
  for (let n = 0; n < 12; n += 1) await send(n < 8 ? second : a, `mine ${n}.`);
  for (const page of [a, second]) {
    await messages(page).filter({ hasText: 'mine 11.' }).waitFor();
    await page.waitForTimeout(300);
    assert.deepEqual(await page.evaluate(() => window.seen), { twice: 0, removed: 0 });
  }
  await close();
});

test('who is removed from the open chat is notified, and who leaves it is not', async () => {
  const { a, b, boris, chat, close } = await pair();
  const notice = (page) => page.getByText('You are not a member of this chat.');
  server.command('chat', 'kick', chat, boris);
  await notice(b).waitFor();
  await b.getByRole('heading', { name: chat, exact: true }).waitFor({ state: 'hidden' });
  await a.getByRole('button', { name: 'About this chat' }).click();
  await a.getByRole('button', { name: 'Leave chat' }).click();
  await a.getByRole('alertdialog').getByRole('button', { name: 'Leave' }).click();
  await a.getByRole('navigation', { name: 'Chats' }).getByText(chat).waitFor({ state: 'detached' });
  assert.equal(await notice(a).count(), 0);
  await close();
});

test('a session that ends elsewhere leads to the login; the draft waits for the same user alone', async () => {
  const { a, anna, chat, contexts, close } = await pair();
  await a.getByRole('textbox', { name: 'Message', exact: true }).fill('a secret draft');
  await until(() => a.evaluate(async () => {
    const { name } = (await indexedDB.databases()).find((each) => /^vestnik-\d+-/.test(each.name)) ?? {};
    const db = await new Promise((resolve) => { const r = indexedDB.open(name); r.onsuccess = () => resolve(r.result); });
    const count = await new Promise((resolve) => { const r = db.transaction('drafts').objectStore('drafts').count(); r.onsuccess = () => resolve(r.result); });
    db.close();
    return count;
  }), (count) => count === 1);
  const other = await visitor();
  const elsewhere = await open(other);
  await logIn(elsewhere, anna);
  await endOtherSessions(elsewhere);
  await a.getByRole('button', { name: 'Log in' }).waitFor();
  assert.doesNotMatch(await a.locator('body').innerText(), /not a member/);
  // Somebody else on the same browser sees nothing of it.
  const carl = fresh('carl');
  await register(a, carl);
  assert.doesNotMatch(await a.locator('body').innerText(), /secret draft/);
  await a.getByRole('button', { name: 'Settings' }).click();
  await a.getByRole('button', { name: 'Log out' }).click();
  const confirm = a.getByRole('alertdialog').getByRole('button', { name: 'Log out' });
  if (await confirm.waitFor({ timeout: 1000 }).then(() => true, () => false)) await confirm.click();
  await logIn(a, anna);
  await a.getByRole('navigation', { name: 'Chats' }).getByText(chat).click();
  await until(() => a.getByRole('textbox', { name: 'Message', exact: true }).inputValue(), (text) => text === 'a secret draft');
  await other.close();
  await close();
  assert.equal(contexts.length, 2);
});

test('what is in the box when a session ends elsewhere is there after the login', async () => {
  const { a, anna, chat, close } = await pair();
  const sessions = JSON.parse(server.command('session', 'list', anna, '--json'));
  const box = a.getByRole('textbox', { name: 'Message', exact: true });
  await box.fill('just typed');
  for (const { id } of sessions) server.command('session', 'end', String(id));
  await a.getByRole('button', { name: 'Log in' }).waitFor();
  await logIn(a, anna);
  if (!await box.isVisible()) await a.getByRole('navigation', { name: 'Chats' }).getByText(chat).click();
  await until(() => box.inputValue(), (text) => text === 'just typed');
  await close();
});

/**
 * Changes the password: the user's other sessions end.
 * @param {import('playwright-core').Page} page
 */
async function endOtherSessions(page) {
  await page.getByRole('button', { name: 'Settings' }).click();
  const dialog = page.getByRole('dialog');
  await dialog.locator('summary').filter({ hasText: 'Password' }).click();
  await dialog.getByLabel('Current password').fill(PASSWORD);
  await dialog.getByLabel('New password').fill(PASSWORD);
  await dialog.getByRole('button', { name: 'Change password' }).click();
}

for (const [what, breakStorage] of [
  ['forbidden', () => {
    IDBFactory.prototype.open = () => { throw new DOMException('not here', 'SecurityError'); };
    Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('no', 'SecurityError'); } });
  }],
  ['full', () => {
    IDBObjectStore.prototype.put = () => { throw new DOMException('full', 'QuotaExceededError'); };
  }],
]) {
  test(`storage that is ${what} costs the offline copy and nothing else, said once`, async () => {
    const context = await visitor({ serviceWorkers: 'block' });
    await context.addInitScript(breakStorage);
    const a = await open(context);
    const notice = a.getByText('This browser keeps nothing for offline use.');
    const chat = fresh('attic');
    await notice.locator('..').getByRole('button', { name: 'Close' }).click();
    await register(a, fresh('anna'));
    await createChat(a, chat);
    const other = await visitor();
    const b = await open(other);
    await register(b, fresh('boris'));
    await joinChat(b, chat);
    await send(b, 'can you read this?');
    await messages(a).filter({ hasText: 'can you read this?' }).waitFor();
    await send(a, 'yes, without storage');
    await messages(b).filter({ hasText: 'yes, without storage' }).waitFor();
    await server.stop();
    await send(a, 'while the server was away');
    await server.start();
    await messages(b).filter({ hasText: 'while the server was away' }).waitFor({ timeout: 30_000 });
    assert.equal(await messages(a).filter({ hasText: 'while the server was away' }).count(), 1);
    assert.equal(await notice.count(), 0);
    await context.close();
    await other.close();
  });
}

test('over plain HTTP each tab has a session of its own, and the page says once what is missing', async () => {
  const away = await launch(['--host-resolver-rules=MAP chat.test 127.0.0.1']);
  const url = `http://chat.test:${server.port}/`;
  const context = await away.newContext();
  const [a, b] = [await context.newPage(), await context.newPage()];
  const [anna, boris, chat] = [fresh('anna'), fresh('boris'), fresh('porch')];
  for (const page of [a, b]) {
    page.setDefaultTimeout(15_000);
    await page.goto(url);
    await page.getByText('This connection is not encrypted').waitFor();
  }
  assert.equal(await a.evaluate(() => isSecureContext), false);
  const notice = a.getByText('This page is not served over HTTPS');
  assert.equal(await notice.count(), 0);
  await register(a, anna);
  await createChat(a, chat);
  await register(b, boris);
  await joinChat(b, chat);
  await send(b, 'from another session');
  await messages(a).filter({ hasText: 'from another session' }).waitFor();
  await a.reload();
  await messages(a).filter({ hasText: 'from another session' }).waitFor();
  await notice.waitFor();
  assert.equal(await notice.count(), 1);
  await messages(a).filter({ hasText: 'from another session' }).click({ button: 'right' });
  await a.getByRole('menuitem', { name: 'Copy text' }).click();
  await a.getByText('Copied').waitFor();
  await away.close();
});

test('nothing complained, and no page asked another origin', () => {
  assert.deepEqual(watch.problems, []);
});
