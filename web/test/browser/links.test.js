/**
 * Links in the address: invites, resets, the first run, and nonsense.
 */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { launch } from './browser.js';
import { PASSWORD, RealServer, Watch, createChat, logIn, messages, register, send, until } from './real.js';

/** @type {import('playwright-core').Browser} */
let browser;
/** @type {RealServer} */
let server;
const watch = new Watch();
let operatorLink = '';

before(async () => {
  browser = await launch();
  // The first invite registers whatever the option says.
  server = await new RealServer({ registration: 'invite' }).start();
  operatorLink = await until(async () => /\S+#invite=\S+/.exec(server.log)?.[0] ?? '', (link) => link !== '');
});
after(async () => {
  await browser?.close();
  await server?.end();
});

/** @param {string} [hash] */
async function visit(hash = '') {
  const context = await browser.newContext();
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  watch.follow(page, server.url);
  await page.goto(server.url + hash);
  return { page, context };
}

/** @param {string} link */
const hashOf = (link) => link.slice(link.indexOf('#'));

test('a new server welcomes, and its link makes the operator', async () => {
  const bare = await visit();
  await bare.page.getByRole('heading', { name: 'Welcome' }).waitFor();
  assert.equal(await bare.page.getByRole('button', { name: 'Log in' }).count(), 0);
  await bare.context.close();

  const { page, context } = await visit(hashOf(operatorLink));
  await page.getByRole('button', { name: 'Register' }).waitFor();
  assert.equal(new URL(page.url()).hash, '');
  await register(page, 'operator');
  await createChat(page, 'family');
  await page.getByRole('button', { name: 'Invite', exact: true }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Create link' }).click();
  const link = await until(() => page.getByRole('textbox', { name: 'Link' }).inputValue(), (text) => text.includes('#invite='));
  assert.equal(new URL(link).origin, new URL(server.url).origin);

  const guest = await visit(hashOf(link));
  await register(guest.page, 'guest');
  await guest.page.getByRole('heading', { name: 'family' }).waitFor();
  assert.equal(new URL(guest.page.url()).hash.startsWith('#invite'), false);
  await send(guest.page, 'here I am');
  await page.keyboard.press('Escape');
  await messages(page).filter({ hasText: 'here I am' }).waitFor();
  await guest.context.close();
  await context.close();
});

test('an invite joins those who have an account, logged in or not', async () => {
  const { page, context } = await visit();
  await logIn(page, 'operator');
  await createChat(page, 'club');
  await page.getByRole('button', { name: 'Invite', exact: true }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Create link' }).click();
  const link = await until(() => page.getByRole('textbox', { name: 'Link' }).inputValue(), (text) => text.includes('#invite='));

  const guest = await visit(hashOf(link));
  await guest.page.getByRole('button', { name: 'I have an account' }).click();
  await logIn(guest.page, 'guest');
  await guest.page.getByRole('heading', { name: 'club' }).waitFor();
  // Once more, while logged in: it is a member already, the chat opens.
  await guest.page.goto(`${server.url}${hashOf(link)}`);
  await guest.page.getByRole('heading', { name: 'club' }).waitFor();
  assert.equal(new URL(guest.page.url()).hash.startsWith('#invite'), false);
  await guest.context.close();
  await context.close();
});

test('a reload keeps the code of a link until it is used, in this tab alone', async () => {
  const { page, context } = await visit('#invite=AAAABBBBCCCC');
  const code = page.getByRole('textbox', { name: 'Invite code' });
  assert.equal(await code.inputValue(), 'AAAABBBBCCCC');
  await page.reload();
  assert.equal(await code.inputValue(), 'AAAABBBBCCCC');
  assert.equal(new URL(page.url()).hash, '');
  await page.getByRole('button', { name: 'I have an account' }).click();
  await page.reload();
  assert.equal(await code.inputValue(), 'AAAABBBBCCCC');
  const other = await context.newPage();
  await other.goto(server.url);
  await other.getByRole('button', { name: 'Log in' }).waitFor();
  await page.getByRole('button', { name: 'I have an account' }).click();
  await logIn(page, 'guest');
  await page.getByText('This invite is not valid any more.').waitFor();
  await page.reload();
  await page.getByRole('navigation', { name: 'Chats' }).waitFor();
  assert.equal(await page.getByText('This invite is not valid any more.').count(), 0);
  await context.close();

  const reset = await visit('#reset=guest:AAAABBBB');
  await reset.page.getByRole('textbox', { name: 'New password' }).waitFor();
  await reset.page.reload();
  await reset.page.getByText('For guest.').waitFor();
  await reset.page.getByRole('button', { name: 'Log in' }).click();
  await reset.page.getByRole('textbox', { name: 'Name' }).waitFor();
  await reset.page.reload();
  await reset.page.getByRole('button', { name: 'Log in' }).waitFor();
  assert.equal(await reset.page.getByRole('textbox', { name: 'New password' }).count(), 0);
  await reset.context.close();
});

test('without storage a link works, and a reload loses it', async () => {
  const context = await browser.newContext();
  const page = await context.newPage();
  watch.follow(page, server.url);
  await page.addInitScript(() => {
    Object.defineProperty(window, 'sessionStorage', { get: () => { throw new DOMException('', 'SecurityError'); } });
  });
  await page.goto(`${server.url}#invite=AAAABBBBCCCC`);
  await page.getByRole('textbox', { name: 'Invite code' }).waitFor();
  await page.reload();
  await page.getByRole('button', { name: 'Log in' }).waitFor();
  await context.close();
});

test('an invite that is no more shows one line', async () => {
  const { page, context } = await visit();
  await logIn(page, 'guest');
  await page.goto(`${server.url}#invite=AAAAAAAAAAAAAAAA`);
  await page.getByText('This invite is not valid any more.').waitFor();
  await context.close();
});

test('a reset link sets a new password, once', async () => {
  const link = `#reset=guest:${server.command('user', 'reset', 'guest').trim()}`;
  const { page, context } = await visit(hashOf(link));
  await page.getByRole('textbox', { name: 'New password' }).waitFor();
  assert.equal(new URL(page.url()).hash, '');
  await page.getByRole('textbox', { name: 'New password' }).fill('another password');
  await page.getByRole('button', { name: 'Set password' }).click();
  await page.getByRole('button', { name: 'Log in' }).waitFor();
  await page.getByRole('textbox', { name: 'Name' }).fill('guest');
  await page.getByRole('textbox', { name: 'Password', exact: true }).fill(PASSWORD);
  await page.getByRole('button', { name: 'Log in' }).click();
  await page.getByRole('alert').waitFor();
  await page.getByRole('textbox', { name: 'Password', exact: true }).fill('another password');
  await page.getByRole('button', { name: 'Log in' }).click();
  await page.getByRole('navigation', { name: 'Chats' }).waitFor();
  await page.goto(`${server.url}${hashOf(link)}`);
  await page.getByRole('textbox', { name: 'New password' }).fill('a third password');
  await page.getByRole('button', { name: 'Set password' }).click();
  await page.getByRole('alert').waitFor();
  await context.close();
});

for (const nonsense of ['#invite=', '#reset=nobody', '#reset=:x', '#<script>alert(1)</script>', '#invite=%00%00', '#chat=x']) {
  test(`${nonsense} shows one line and leaves the address`, async () => {
    const { page, context } = await visit(nonsense);
    await page.getByText('This link does not work: it is damaged or incomplete.').waitFor();
    assert.equal(new URL(page.url()).hash, '');
    await page.getByRole('button', { name: 'Log in' }).waitFor();
    await context.close();
  });
}

test('where registration is closed, invites are for those who have an account, and the pages say so', async () => {
  const closed = await new RealServer({ registration: 'closed' }).start();
  const link = await until(async () => /\S+#invite=\S+/.exec(closed.log)?.[0] ?? '', (text) => text !== '');
  const visitClosed = async (hash) => {
    const page = await (await browser.newContext()).newPage();
    page.setDefaultTimeout(15_000);
    await page.goto(closed.url + hash);
    return page;
  };
  const page = await visitClosed(hashOf(link));
  await register(page, 'operator');
  await createChat(page, 'family');
  await page.getByRole('button', { name: 'Invite', exact: true }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Create link' }).click();
  await page.getByRole('dialog').getByText('start the server with --registration invite').waitFor();
  const invite = await page.getByRole('textbox', { name: 'Link' }).inputValue();

  const guest = await visitClosed(hashOf(invite));
  await guest.getByText('You were invited. Log in to join.').waitFor();
  await guest.getByText('this server makes none by itself').waitFor();
  assert.equal(await guest.getByRole('button', { name: 'Create an account' }).count(), 0);
  closed.command('user', 'add', 'guest', '--password-stdin');
  await logIn(guest, 'guest');
  await guest.getByRole('heading', { name: 'family' }).waitFor();
  await page.context().close();
  await guest.context().close();
  await closed.end();
});

test('where anybody can register, an invite by a chat admin makes an account and leads into the chat', async () => {
  const open = await new RealServer({ registration: 'open' }).start();
  const context = await browser.newContext();
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  await page.goto(open.url);
  await register(page, 'anna');
  await createChat(page, 'club');
  await page.getByRole('button', { name: 'Invite', exact: true }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Create link' }).click();
  const link = await until(() => page.getByRole('textbox', { name: 'Link' }).inputValue(), (text) => text.includes('#invite='));
  const guest = await (await browser.newContext()).newPage();
  guest.setDefaultTimeout(15_000);
  await guest.goto(link);
  await register(guest, 'boris');
  await guest.getByRole('heading', { name: 'club' }).waitFor();
  await guest.context().close();
  const late = await (await browser.newContext()).newPage();
  late.setDefaultTimeout(15_000);
  await late.goto(`${open.url}#invite=AAAABBBBCCCC`);
  await register(late, 'carl');
  await late.getByText('This invite is not valid any more.').waitFor();
  await late.context().close();
  await context.close();
  await open.end();
});

test('links begin at the public URL, whatever address the page has', async () => {
  const behind = await new RealServer({ options: ['--public-url', 'https://chat.example.org'] }).start();
  const context = await browser.newContext();
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  watch.follow(page, behind.url);
  await page.goto(behind.url);
  await register(page, 'operator');
  behind.command('user', 'set', 'operator', '--operator', 'on');
  behind.command('user', 'add', 'guest', '--password-stdin');
  await page.reload();
  await createChat(page, 'family');
  await page.getByRole('button', { name: 'Invite', exact: true }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Create link' }).click();
  const link = page.getByRole('textbox', { name: 'Link' });
  await until(() => link.inputValue(), (text) => text.startsWith('https://chat.example.org/#invite='));
  await page.keyboard.press('Escape');
  await page.getByRole('button', { name: 'Settings', exact: true }).click();
  const dialog = page.getByRole('dialog', { name: 'Settings' });
  await dialog.locator('summary', { hasText: 'Users' }).click();
  await dialog.getByRole('button', { name: 'More about guest' }).click();
  await page.getByRole('menuitem', { name: 'Make a reset link' }).click();
  await until(() => link.inputValue(), (text) => text.startsWith('https://chat.example.org/#reset=guest:'));
  await context.close();
  await behind.end();
});

test('nothing complained, and no page asked another origin', () => {
  assert.deepEqual(watch.problems, []);
});
