/**
 * What people set up for themselves: hours, a finger for a mouse, Back, print, forced colours and
 * large text; and a server that has another version by now. On a made-up store.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { browserPath, launch } from './browser.js';
import { until } from './real.js';
import { serve } from './server.js';

/** @type {import('playwright-core').Browser} */
let browser;
/** @type {{url: string, close: () => void}} */
let site;
/** @type {string[]} */
const problems = [];

const DESK = { viewport: { width: 1280, height: 800 } };
const PHONE = { viewport: { width: 360, height: 640 }, isMobile: true, hasTouch: true };
const TABLET = { viewport: { width: 820, height: 1180 }, isMobile: true, hasTouch: true };

/**
 * @param {string} address
 * @param {any} [options]
 * @param {() => void} [prepare] runs before the page
 */
async function open(address, options = DESK, prepare = () => {}) {
  const context = await browser.newContext({ locale: 'en-GB', reducedMotion: 'reduce', ...options });
  context.setDefaultTimeout(15_000);
  const page = await context.newPage();
  page.on('pageerror', (error) => problems.push(`${address}: ${error.message}`));
  await page.addInitScript(prepare);
  await page.goto(`${site.url}/?${address}`);
  await page.locator('#start').waitFor({ state: 'detached' });
  return page;
}

const list = (page) => page.getByRole('navigation', { name: 'Chats' });
const article = (page, text) => page.getByRole('article').filter({ hasText: text }).last();
const more = (page, text) => article(page, text).getByRole('button', { name: 'More' });
const box = (page) => page.getByRole('textbox', { name: 'Message', exact: true });
const entries = (page) => page.evaluate(() => history.length);

/** The state of the entry of the history that is shown. */
const layers = (page) => page.evaluate(() => history.state?.layers ?? 0);

/** @param {import('playwright-core').Page} page @returns {Promise<string>} how it writes 0:29 */
const midnight = (page) => page.evaluate(async (time) => {
  const { formatTime } = await import('/a/test/src/ui/kit.js');
  return formatTime('time', time).replace(/\s/, ' ');
}, Date.UTC(2026, 0, 15, 0, 29) * 1000);

describe('the interface, as readers set it up', { skip: !browserPath && 'no Chromium here' }, () => {
  before(async () => {
    browser = await launch();
    site = await serve();
  });
  after(async () => {
    await browser?.close();
    site?.close();
  });
  after(() => assert.deepEqual(problems, []));

  for (const [locale, wanted] of [['de-DE', '00:29'], ['en-GB', '00:29'], ['en-US', '12:29 AM'], ['ru-RU', '00:29']]) {
    test(`a reader of ${locale} sees the hours of ${locale}`, async () => {
      const page = await open('scene=full#chat=1', { ...DESK, locale, timezoneId: 'UTC' });
      assert.equal(await midnight(page), wanted);
      await page.context().close();
    });
  }

  test('a browser whose language comes second to English keeps its hours', async () => {
    const page = await open('scene=full#chat=1', { ...DESK, locale: 'de-DE', timezoneId: 'UTC' }, () => {
      Object.defineProperty(navigator, 'languages', { value: ['de-DE', 'de', 'en-US', 'en'] });
    });
    assert.equal(await midnight(page), '00:29');
    await page.context().close();
  });

  test('a browser that names no valid language shows the times of the page', async () => {
    const page = await open('scene=full#chat=1', { ...DESK, timezoneId: 'UTC' }, () => {
      Object.defineProperty(navigator, 'language', { value: 'c' });
    });
    await article(page, 'Which bus').waitFor();
    assert.equal(await midnight(page), '00:29');
    await page.context().close();
  });

  test('after a journey times are those of the new zone', async () => {
    const page = await open('scene=full');
    await page.clock.install();
    await page.reload();
    await list(page).getByRole('link', { name: /Семья/ }).click();
    await box(page).fill('half a thought');
    const label = () => article(page, 'Which bus').getAttribute('aria-label');
    const before = await label();
    const session = await page.context().newCDPSession(page);
    // A zone that the machines of tests hardly have.
    await session.send('Emulation.setTimezoneOverride', { timezoneId: 'Asia/Kathmandu' });
    await page.clock.fastForward(31_000);
    await until(label, (text) => text !== null && text !== before);
    assert.equal(await box(page).inputValue(), 'half a thought');
    await page.context().close();
  });

  test('a menu with more than fits on the screen scrolls', async () => {
    const page = await open('scene=full#chat=1', { viewport: { width: 320, height: 256 } });
    await article(page, 'Yes!!').getByRole('button', { name: 'More' }).click({ force: true });
    const menu = page.getByRole('menu');
    await menu.waitFor();
    assert.ok((await menu.boundingBox())?.y >= 0);
    await menu.getByRole('menuitem', { name: 'Delete' }).scrollIntoViewIfNeeded();
    await menu.getByRole('menuitem', { name: 'Reply' }).click();
    await page.getByText('Reply to anna').waitFor();
    await page.context().close();
  });

  test('a long name of the server wraps next to a button', async () => {
    const page = await open('scene=full', { viewport: { width: 320, height: 640 } });
    await page.getByRole('button', { name: 'Settings' }).click();
    const names = page.locator('dialog .chat-about-names');
    await names.evaluate((element) => { element.lastChild.textContent = 'W'.repeat(60); });
    assert.ok(await names.evaluate((element) => element.scrollWidth <= element.clientWidth));
    await page.context().close();
  });

  for (const [device, options] of [['phone', PHONE], ['tablet', TABLET]]) {
    test(`what a finger uses is 44 px large on a ${device}`, async () => {
      const page = await open('scene=full#chat=1', options);
      await article(page, 'Which bus').waitFor();
      const small = () => page.evaluate(() => {
        const found = [];
        for (const element of document.querySelectorAll('button, input, select, summary, [role=menuitem]')) {
          const box = element.getBoundingClientRect();
          if (box.width === 0 || element.matches('.check input, [type=file], .file-card *')) continue;
          // A file is pressed anywhere on its card; a chip reaches further than it looks.
          const reach = element.matches('.chip') ? parseFloat(getComputedStyle(element, '::after').height) : box.height;
          const isLow = reach < 43.9 || (box.width < 43.9 && !element.matches('.link'));
          if (isLow) found.push(`${element.className} ${element.textContent} ${box.width} x ${box.height}`);
          if (element.matches('.message-more') && (box.left < 0 || box.right > innerWidth)) found.push(`outside: ${box.left}`);
        }
        return found;
      });
      assert.deepEqual(await small(), []);
      await more(page, 'Which bus').click({ force: true });
      await page.getByRole('menuitem', { name: 'React' }).waitFor();
      assert.deepEqual(await small(), []);
      await page.getByRole('menuitem', { name: 'React' }).click();
      await page.getByRole('menuitem', { name: '🎉' }).waitFor();
      assert.deepEqual(await small(), []);
      assert.equal(await page.evaluate(() => document.documentElement.scrollWidth > innerWidth), false);
      await page.context().close();
      const card = await open('scene=register', options);
      await card.getByRole('button', { name: 'Register' }).waitFor();
      assert.deepEqual(await card.evaluate(() => [...document.querySelectorAll('button')]
        .map((button) => [button.textContent, button.getBoundingClientRect().height])
        .filter(([, height]) => Number(height) < 43.9)), []);
      await card.context().close();
    });
  }

  test('print: the chat alone, black on white, on as many pages as it needs', async () => {
    const page = await open('scene=large&count=400#chat=2', { ...DESK, colorScheme: 'dark' });
    await page.getByRole('article').first().waitFor();
    await page.emulateMedia({ media: 'print' });
    for (const hidden of [list(page), page.getByRole('textbox', { name: 'Message' }), page.getByRole('button', { name: 'Search' })]) {
      assert.equal(await hidden.first().isVisible(), false);
    }
    await page.waitForTimeout(300);
    const looks = await page.evaluate(() => {
      const element = /** @type {Element} */ (document.querySelector('article:last-of-type .text'));
      const colours = [];
      for (let one = /** @type {Element | null} */ (element); one; one = one.parentElement) colours.push(getComputedStyle(one).backgroundColor);
      return { ink: getComputedStyle(element).color, colours: [...new Set(colours)], canvas: getComputedStyle(document.documentElement).colorScheme };
    });
    assert.deepEqual(looks, { ink: 'rgb(0, 0, 0)', colours: ['rgba(0, 0, 0, 0)'], canvas: 'light' });
    const text = (await page.pdf()).toString('latin1');
    assert.ok((text.match(/\/Type \/Page\b/g) ?? []).length > 1, 'one page');
    await page.context().close();
  });

  test('forced colours: what is chosen, mine, unread and to be pressed looks different', async () => {
    const page = await open('scene=full#chat=1', { ...DESK, forcedColors: 'active' });
    const style = (locator, name, pseudo) => locator.evaluate((element, [key, part]) =>
      getComputedStyle(element, part || undefined).getPropertyValue(key), [name, pseudo ?? '']);
    assert.equal(await style(page.locator('.chat-row.open'), 'outline-style'), 'solid');
    assert.notEqual(await style(page.locator('.chat-row').nth(1), 'outline-style'), 'solid');
    assert.equal(await style(page.locator('.badge').first(), 'border-top-style'), 'solid');
    assert.equal(await style(article(page, 'Yes!!').locator('.bubble'), 'border-top-style'), 'double');
    assert.equal(await style(article(page, 'Which bus').locator('.bubble'), 'border-top-style'), 'solid');
    await article(page, 'Which bus').hover();
    const dots = await style(more(page, 'Which bus'), 'background-color', '::before');
    assert.notEqual(dots, await style(page.locator('body'), 'background-color'), 'the dots of More');
    await page.keyboard.press('Tab');
    assert.notEqual(await style(page.locator(':focus'), 'outline-style'), 'none');
    await page.context().close();
  });

  for (const [name, scene] of [['login', 'scene=login'], ['register', 'scene=register'], ['list', 'scene=full'],
    ['chat', 'scene=full#chat=1'], ['hostile', 'scene=hostile#chat=1'], ['first', 'scene=first']]) {
    test(`${name} fits into 320 px, with wide text as well`, async () => {
      const page = await open(scene, { viewport: { width: 320, height: 480 } });
      await page.waitForTimeout(200);
      const beyond = () => page.evaluate(() => [...document.querySelectorAll('button, input, textarea, a, p, h1, .bubble, .card')]
        .filter((element) => element.getBoundingClientRect().width > 0 && !element.closest('.sr-only, .row-title'))
        .map((element) => [element.className || element.tagName, element.getBoundingClientRect()])
        .filter(([, box]) => box.right > innerWidth + 1 || box.left < -1).map(([what, box]) => `${what} ${box.left} to ${box.right}`));
      assert.deepEqual(await beyond(), []);
      // WCAG 1.4.12.
      await page.evaluate(() => {
        const sheet = new CSSStyleSheet();
        sheet.replaceSync('* { line-height: 1.5 !important; letter-spacing: .12em !important; word-spacing: .16em !important }');
        document.adoptedStyleSheets = [sheet];
      });
      assert.deepEqual(await beyond(), []);
      assert.equal(await page.evaluate(() => document.documentElement.scrollWidth > innerWidth), false);
      await page.context().close();
    });
  }

  test('a keyboard on the screen covers neither the composer nor a dialog', async () => {
    const page = await open('scene=full#chat=1', PHONE);
    const composer = box(page);
    await composer.waitFor();
    await page.evaluate(() => {
      Object.defineProperty(visualViewport, 'height', { value: innerHeight - 280, configurable: true });
      visualViewport?.dispatchEvent(new Event('resize'));
    });
    const bottom = (locator) => locator.boundingBox().then((place) => (place?.y ?? 0) + (place?.height ?? 0));
    assert.ok(await bottom(composer) <= 360);
    await page.getByRole('button', { name: 'Search', exact: true }).click();
    assert.ok(await bottom(page.getByRole('searchbox', { name: 'Search', exact: true })) <= 360);
    await page.context().close();
  });

  test('a part of the page that is gone from the server asks for a reload', async () => {
    for (const options of [DESK, PHONE]) {
      const page = await open('scene=full#chat=1', options);
      await page.route('**/src/ui/chats.js', (route) => route.fulfill({ status: 404 }));
      problems.length = 0;
      await page.getByRole('button', { name: 'Members', exact: true }).click();
      const line = page.locator('.toast').filter({ hasText: 'There is a new version.' });
      await line.getByRole('button', { name: 'Reload', exact: true }).waitFor();
      assert.equal(await page.locator('.toast').count(), 1);
      await page.context().close();
    }
    assert.ok(problems.every((one) => /module/.test(one)), problems.join());
    problems.length = 0;
  });

  // --- Back on a touch device -------------------------------------------------------------------

  for (const [device, options] of [['phone', PHONE], ['tablet', TABLET]]) {
    test(`Back closes what was opened last, and nothing else, on a ${device}`, async () => {
      const page = await open('scene=full', options);
      await list(page).getByRole('link', { name: /Семья/ }).click();
      const isChat = () => box(page).isVisible();
      const dialog = page.getByRole('dialog');
      const menu = page.getByRole('menu');
      /** @type {[string, () => Promise<void>, import('playwright-core').Locator][]} */
      const openings = [
        ['a dialog', () => page.getByRole('button', { name: 'Members', exact: true }).click(), dialog],
        ['a menu', () => more(page, 'Which bus').click({ force: true }), menu],
        ['the choice of an emoji', async () => {
          await more(page, 'Which bus').click({ force: true });
          await page.getByRole('menuitem', { name: 'React' }).click();
          await page.getByRole('menuitem', { name: '🎉' }).waitFor();
        }, menu],
        ['an image', async () => {
          const image = page.locator('article .image').first();
          await image.scrollIntoViewIfNeeded();
          await image.click();
        }, dialog],
      ];
      await box(page).waitFor();
      const address = page.url();
      for (const [what, act, opened] of openings) {
        await act();
        await opened.waitFor();
        await until(() => layers(page), (count) => count === 1);
        await page.goBack();
        await opened.waitFor({ state: 'detached' });
        assert.ok(await isChat(), `${what}: the chat stays`);
        assert.equal(page.url(), address);
      }
      // Two above one another go one by one.
      await more(page, 'Yes!!').click({ force: true });
      await page.getByRole('menuitem', { name: 'Delete' }).click();
      await page.getByRole('alertdialog').waitFor();
      await page.goBack();
      await page.getByRole('alertdialog').waitFor({ state: 'detached' });
      await page.getByRole('button', { name: 'Members', exact: true }).click();
      await page.getByRole('button', { name: /^More about/ }).first().click();
      await until(() => layers(page), (count) => count === 2);
      await page.goBack();
      await menu.waitFor({ state: 'detached' });
      assert.ok(await dialog.isVisible());
      await page.goBack();
      await dialog.waitFor({ state: 'detached' });
      assert.ok(await isChat());
      await page.goBack();
      await list(page).waitFor();
      assert.equal(await isChat(), false);
      await page.context().close();
    });
  }

  test('what was closed otherwise leaves no step behind', async () => {
    const page = await open('scene=full', PHONE);
    await list(page).getByRole('link', { name: /Семья/ }).click();
    await page.getByRole('button', { name: 'Members', exact: true }).click();
    await page.getByRole('button', { name: 'Close', exact: true }).click();
    await until(() => layers(page), (count) => count === 0);
    const before = await entries(page);
    for (let n = 0; n < 3; n += 1) {
      await more(page, 'Which bus').click({ force: true });
      await page.getByRole('menuitem', { name: 'Reply' }).click();
      await until(() => layers(page), (count) => count === 0);
    }
    assert.equal(await entries(page), before);
    await page.goBack();
    await list(page).waitFor();
    assert.equal(await page.evaluate(() => history.state?.above), undefined);
    await page.context().close();
  });

  test('a chat that a dialog opens is one step above the list, and the list stays first', async () => {
    const page = await open('scene=full', PHONE);
    await list(page).getByRole('button', { name: 'New chat' }).click();
    await page.getByRole('textbox', { name: 'Chat name' }).fill('from-a-dialog');
    await page.getByRole('dialog').getByRole('button', { name: 'Create', exact: true }).click();
    await page.getByRole('heading', { name: 'from-a-dialog' }).waitFor();
    await until(() => layers(page), (count) => count === 0);
    assert.match(page.url(), /#chat=\d+$/);
    await page.goBack();
    await list(page).waitFor();
    assert.equal(new URL(page.url()).hash, '');
    assert.equal(await page.evaluate(() => history.state?.above), undefined);
    // One more leaves the page.
    await page.goBack().catch(() => undefined);
    assert.equal(page.url(), 'about:blank');
    await page.context().close();
  });

  test('a reload with a dialog open leaves no step behind', async () => {
    const page = await open('scene=full', PHONE);
    await list(page).getByRole('button', { name: 'Settings' }).click();
    await until(() => layers(page), (count) => count === 1);
    await page.reload();
    await list(page).waitFor();
    await until(() => layers(page), (count) => count === 0);
    await page.goBack().catch(() => undefined);
    assert.equal(page.url(), 'about:blank');
    await page.context().close();
  });

  test('an address that is opened in the page puts no second list below the chat', async () => {
    const page = await open('scene=full', PHONE);
    await list(page).getByRole('button', { name: 'Settings' }).click();
    await until(() => layers(page), (count) => count === 1);
    await page.evaluate(() => { location.hash = '#chat=1'; });
    await page.getByRole('heading', { name: /Семья/ }).waitFor();
    assert.equal(await page.getByRole('dialog').count(), 0);
    await page.goBack();
    await list(page).waitFor();
    await until(() => layers(page), (count) => count === 0);
    await page.goBack().catch(() => undefined);
    assert.equal(page.url(), 'about:blank');
    await page.context().close();
  });
});
