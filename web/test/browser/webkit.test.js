/**
 * The first chat in a second engine: WebKitGTK by its driver, the nearest to Safari that a test can
 * have, talks with Chromium.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import { after, before, describe, test } from 'node:test';

import { launch } from './browser.js';
import { PASSWORD, RealServer, freePort, joinChat, messages, register, send, until } from './real.js';

/** @param {string} name @returns {boolean} whether there is such a program */
function isInstalled(name) {
  return (process.env.PATH ?? '').split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, name), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

const isMissing = !['WebKitWebDriver', 'xvfb-run'].every(isInstalled);

/** The key of an element's id (WebDriver, section 12). */
const ELEMENT = 'element-6066-11e4-a52e-4f735466cecf';
const KEYS = { Enter: '\uE007' };

/** A browser that is driven by the protocol of WebDriver. */
class WebKit {
  /** @param {number} port */
  constructor(port) {
    this.root = `http://127.0.0.1:${port}`;
    // A group of its own: the display and the browser end with the driver.
    this.child = spawn('xvfb-run', ['-a', 'WebKitWebDriver', `--port=${port}`], {
      stdio: 'ignore', detached: true,
      env: { ...process.env, WEBKIT_DISABLE_DMABUF_RENDERER: '1', WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS: '1' },
    });
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {any} [body]
   */
  async ask(method, path, body) {
    const answer = await fetch(this.root + path, {
      method, body: body && JSON.stringify(body), headers: { 'Content-Type': 'application/json' },
    });
    const { value } = /** @type {any} */ (await answer.json());
    if (!answer.ok) throw new Error(`${path}: ${value?.error} ${value?.message}`);
    return value;
  }

  /** @param {string} url */
  async open(url) {
    await until(() => this.ask('GET', '/status').then(() => true, () => false), (is) => is);
    const { sessionId } = await this.ask('POST', '/session', { capabilities: { alwaysMatch: {} } });
    this.root += `/session/${sessionId}`;
    await this.ask('POST', '/url', { url });
  }

  /**
   * The first element of a role and a name, as the browser computes them.
   * @param {string} role
   * @param {string | RegExp} name
   * @returns {Promise<string>}
   */
  async find(role, name) {
    const tags = 'a, button, input, textarea, nav, h1, article, [role], dialog';
    /** @type {string[]} */
    let seen = [];
    const found = await until(async () => {
      seen = [];
      for (const { [ELEMENT]: id } of await this.ask('POST', '/elements', { using: 'css selector', value: tags })) {
        // An element that is gone meanwhile has neither.
        const [itsRole, label] = await Promise.all([
          this.ask('GET', `/element/${id}/computedrole`), this.ask('GET', `/element/${id}/computedlabel`),
        ]).catch(() => ['none', '']);
        seen.push(`${itsRole} ${label}`);
        if (itsRole === role && (name instanceof RegExp ? name.test(label) : label === name)) return id;
      }
      return '';
    }, (id) => id !== '', 30_000).catch(() => '');
    if (!found) throw new Error(`no ${role} ${name} among: ${seen.join(', ')}`);
    return found;
  }

  /** @param {string} role @param {string} name */
  async click(role, name) {
    await this.ask('POST', `/element/${await this.find(role, name)}/click`, {});
  }

  /** @param {string} role @param {string} name @param {string} text */
  async type(role, name, text) {
    await this.ask('POST', `/element/${await this.find(role, name)}/value`, { text });
  }

  async end() {
    await this.ask('DELETE', '').catch(() => undefined);
    if (this.child.pid) process.kill(-this.child.pid, 'SIGKILL');
  }
}

describe('WebKitGTK', { skip: isMissing && 'no driver here' }, () => {
  /** @type {import('playwright-core').Browser} */
  let browser;
  /** @type {RealServer} */
  let server;
  /** @type {WebKit} */
  let webkit;

  before(async () => {
    [browser, server] = await Promise.all([launch(), new RealServer().start()]);
    webkit = new WebKit(await freePort());
    await webkit.open(server.url);
  });
  after(async () => {
    await webkit?.end();
    await browser?.close();
    await server?.end();
  });

  test('the first chat', async () => {
    await webkit.click('button', 'Create an account');
    await webkit.type('textbox', 'Name', 'anna');
    await webkit.type('textbox', 'Password', PASSWORD);
    await webkit.click('button', 'Register');
    await webkit.find('navigation', 'Chats');
    await webkit.click('button', 'New chat');
    await webkit.type('textbox', 'Chat name', 'kitchen');
    await webkit.click('button', 'Create');
    await webkit.find('heading', 'kitchen');
    await webkit.type('textbox', 'Message', `hello from WebKit${KEYS.Enter}`);
    await webkit.find('article', /^anna, .*hello from WebKit$/);

    const page = await browser.newPage();
    page.setDefaultTimeout(20_000);
    await page.goto(server.url);
    await register(page, 'boris');
    await joinChat(page, 'kitchen');
    await messages(page).filter({ hasText: 'hello from WebKit' }).waitFor();
    await send(page, 'hello from Chromium');
    await webkit.find('article', /^boris, .*hello from Chromium$/);

    await server.stop();
    await webkit.type('textbox', 'Message', `while it was away${KEYS.Enter}`);
    await server.start();
    await messages(page).filter({ hasText: 'while it was away' }).waitFor({ timeout: 40_000 });
    assert.equal(await messages(page).filter({ hasText: 'while it was away' }).count(), 1);
  });
});
