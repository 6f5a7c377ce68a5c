/**
 * Makes screenshots of every screen: `node shots.js FOLDER [filter]`, and with `docs` as the folder
 * the three of the documentation.
 */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { launch } from './browser.js';
import { serve } from './server.js';

const SIZES = [[360, 640], [768, 1024], [1280, 800]];

/** @typedef {import('playwright-core').Page} Page */

/** Each screen: its address, and what to do before the picture. */
const SCREENS = {
  login: ['scene=login'],
  'login-ended': ['scene=login&why=ended', async (page) => {
    await page.getByLabel('Name').fill('anna');
    await page.getByLabel('Password').fill('short');
    await page.getByRole('button', { name: 'Log in' }).click();
    await page.getByRole('alert').waitFor();
  }],
  'login-invited': ['scene=login&registration=closed&invite=x'],
  register: ['scene=register'],
  reset: ['scene=reset'],
  welcome: ['scene=welcome'],
  first: ['scene=first'],
  'first-link': ['scene=first', async (page) => {
    await page.getByLabel('Name of your first chat').fill('family');
    await page.getByRole('button', { name: 'Continue' }).click();
    await page.getByLabel('Link').waitFor();
  }],
  none: ['scene=none'],
  list: ['scene=full&typing'],
  chat: ['scene=full#chat=1'],
  'chat-direct': ['scene=full#chat=2'],
  'chat-large': ['scene=full#chat=3'],
  'chat-empty': ['scene=full#chat=10'],
  'chat-edit': ['scene=full#chat=2', async (page) => {
    await page.getByRole('textbox', { name: 'Message' }).press('ArrowUp');
  }],
  'chat-reply': ['scene=full&connection=offline#chat=1', async (page) => {
    await message(page, 'Bus 412').hover();
    await message(page, 'Bus 412').getByRole('button', { name: 'More' }).click();
    await page.getByRole('menuitem', { name: 'Reply' }).click();
    await page.getByRole('textbox', { name: 'Message' }).fill('Thanks! I will take that one.\nSecond line @');
    await page.getByRole('textbox', { name: 'Message' }).pressSequentially('b');
    await page.waitForTimeout(300);
  }],
  'chat-failed': ['scene=full#chat=1', async (page) => {
    for (const text of ['This is slow', 'You refuse this']) {
      await page.getByRole('textbox', { name: 'Message' }).fill(text);
      await page.getByRole('button', { name: 'Send', exact: true }).click();
    }
    await page.getByRole('button', { name: 'Try again' }).waitFor();
  }],
  menu: ['scene=full#chat=1', async (page) => {
    await message(page, 'Yes!!').getByRole('button', { name: 'More' }).click({ force: true });
    await page.getByRole('menu').waitFor();
  }],
  picker: ['scene=full#chat=1', async (page) => {
    await message(page, 'Yes!!').getByRole('button', { name: 'More' }).click({ force: true });
    await page.getByRole('menuitem', { name: 'React' }).click();
    await page.getByRole('menuitem', { name: '🔥' }).waitFor();
  }],
  delete: ['scene=full#chat=1', async (page) => {
    await message(page, 'Yes!!').getByRole('button', { name: 'More' }).click({ force: true });
    await page.getByRole('menuitem', { name: 'Delete' }).click();
  }],
  'new-chat': ['scene=full', async (page) => {
    await page.getByRole('button', { name: 'New chat' }).click();
    await page.getByLabel('Find a chat or person').fill('ma');
    await page.waitForTimeout(500);
  }],
  'new-chat-closed': ['scene=full', async (page) => {
    await page.getByRole('button', { name: 'New chat' }).click();
    await page.getByText('Who can join').click();
  }],
  members: ['scene=full#chat=1', async (page) => {
    await page.getByRole('button', { name: 'Members' }).click();
    await page.getByText('banned').first().waitFor();
  }],
  'members-menu': ['scene=full#chat=1', async (page) => {
    await page.getByRole('button', { name: 'Members' }).click();
    await page.getByRole('button', { name: 'More about Мария' }).click();
  }],
  invite: ['scene=full#chat=1', async (page) => {
    await page.getByRole('button', { name: 'Invite' }).click();
    await page.getByRole('button', { name: 'Create link' }).click();
    await page.getByLabel('Link').waitFor();
  }],
  search: ['scene=full#chat=1', async (page) => {
    await page.getByRole('button', { name: 'Search' }).click();
    await page.getByRole('searchbox', { name: 'Search' }).fill('в');
    await page.getByLabel('In all my chats').check();
    await page.waitForTimeout(500);
  }],
  'search-none': ['scene=full#chat=1', async (page) => {
    await page.getByRole('button', { name: 'Search' }).click();
    await page.getByRole('searchbox', { name: 'Search' }).fill('holiday');
    await page.getByText('Nothing found.').waitFor();
  }],
  'chat-settings': ['scene=full#chat=1', async (page) => {
    await page.getByRole('button', { name: 'About this chat' }).click();
  }],
  settings: ['scene=full', async (page) => {
    await page.getByRole('button', { name: 'Settings', exact: true }).click();
  }],
  'settings-sessions': ['scene=full', async (page) => {
    await page.getByRole('button', { name: 'Settings', exact: true }).click();
    await page.locator('summary', { hasText: 'Sessions' }).click();
    await page.locator('summary', { hasText: 'Users' }).click();
    await page.waitForTimeout(200);
  }],
  'send-file': ['scene=full#chat=1', async (page) => {
    await page.locator('input[type=file]').setInputFiles([
      { name: 'sunset.png', mimeType: 'image/png', buffer: PNG },
      { name: 'Договор аренды на летний период, подписанный.pdf', mimeType: 'application/pdf', buffer: Buffer.alloc(348_000) },
    ]);
    await page.getByRole('dialog', { name: 'Send file' }).waitFor();
  }],
  upload: ['scene=full#chat=1', async (page) => {
    await page.evaluate(() => (window.store.uploadMs = 400));
    await page.locator('input[type=file]').setInputFiles(
      { name: 'minutes of the meeting.pdf', mimeType: 'application/pdf', buffer: Buffer.alloc(348_000) });
    await page.getByRole('dialog', { name: 'Send file' }).getByRole('button', { name: 'Send' }).click();
    await page.waitForTimeout(1300);
  }],
  image: ['scene=full#chat=1', async (page) => {
    await page.getByRole('img', { name: 'dacha-morning.jpg' }).click();
    await page.waitForTimeout(400);
  }],
  switcher: ['scene=full', async (page) => {
    await page.keyboard.press('Control+k');
    await page.getByLabel('Go to chat').first().waitFor();
  }],
  keys: ['scene=full', async (page) => {
    await page.keyboard.press('?');
  }],
  connecting: ['scene=full&connection=connecting&update#chat=1', async (page) => {
    await page.waitForTimeout(1000);
  }],
  hostile: ['scene=hostile#chat=1'],
  'hostile-list': ['scene=hostile'],
};

const PNG = Buffer.from('iVBORw0KGgoAAAANSUhEUgAAAAoAAAAKCAIAAAACUFjqAAAAFklEQVR4nGNwaD6EBzGMSo9Kj0oTlwYAyL1bLEzqCYsAAAAASUVORK5CYII=', 'base64');

/** @param {Page} page @param {string} text */
const message = (page, text) => page.getByRole('article').filter({ hasText: text }).last();

/**
 * @param {import('playwright-core').Browser} browser
 * @param {string} url
 * @param {{width: number, height: number, scheme: 'light' | 'dark', locale?: string}} view
 * @returns {Promise<Page>}
 */
export async function open(browser, url, { width, height, scheme, locale = 'en-GB' }) {
  const isPhone = width < 500;
  const context = await browser.newContext({
    viewport: { width, height }, colorScheme: scheme, locale, reducedMotion: 'reduce',
    isMobile: isPhone, hasTouch: isPhone, timezoneId: 'Europe/Berlin',
  });
  const page = await context.newPage();
  await page.goto(url);
  await page.locator('#start').waitFor({ state: 'detached' });
  await page.waitForTimeout(500);
  return page;
}

const DOCS = new URL('../../../docs/img/', import.meta.url).pathname;

/** Makes the pictures of the documentation. @param {import('playwright-core').Browser} browser */
async function docs(browser) {
  const { url, close } = await serve();
  await mkdir(DOCS, { recursive: true });
  const pictures = [
    ['desk', 'scene=full#chat=1', 960, 600, 'light'],
    ['dark', 'scene=full&typing#chat=1', 860, 560, 'dark'],
    ['phone', 'scene=full#chat=1', 360, 640, 'light'],
  ];
  for (const [name, address, width, height, scheme] of pictures) {
    const page = await open(browser, `${url}/?${address}`, { width, height, scheme });
    await page.waitForTimeout(300);
    await page.screenshot({ path: join(DOCS, `${name}.png`) });
    await page.context().close();
  }
  close();
}

async function main() {
  const [folder = 'shots', filter = ''] = process.argv.slice(2);
  if (folder === 'docs') {
    const browser = await launch();
    await docs(browser);
    await browser.close();
    return;
  }
  await mkdir(folder, { recursive: true });
  const browser = await launch();
  const { url, close } = await serve();
  for (const [name, [address, act]] of Object.entries(SCREENS)) {
    for (const [width, height] of SIZES) {
      for (const scheme of ['light', 'dark']) {
        const file = `${name}-${width}-${scheme}.png`;
        if (!file.includes(filter)) continue;
        const page = await open(browser, `${url}/?${address}`, { width, height, scheme });
        page.on('pageerror', (error) => console.error(file, error.message));
        page.on('console', (line) => line.type() === 'error' && console.error(file, line.text()));
        try {
          await act?.(page);
        } catch (error) {
          console.error(file, String(error).slice(0, 300));
        }
        await page.waitForTimeout(150);
        await page.screenshot({ path: join(folder, file) });
        await page.context().close();
      }
    }
  }
  await browser.close();
  close();
}

await main();
