/**
 * The real server for tests in the browser: its own data, a port that stays over restarts.
 */
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
const BINARIES = ['target/release/vestnik', 'target/debug/vestnik'].map((path) => join(ROOT, path));

/** The server to test; empty where none is built. */
export const serverPath = process.env.VESTNIK ?? BINARIES.find((path) => existsSync(path)) ?? '';

/** @returns {Promise<number>} a port that is free now */
export function freePort() {
  return new Promise((resolve) => {
    const probe = createServer().listen(0, '127.0.0.1', () => {
      const { port } = /** @type {import('node:net').AddressInfo} */ (probe.address());
      probe.close(() => resolve(port));
    });
  });
}

export class RealServer {
  /** @param {{registration?: string, options?: string[]}} [settings] */
  constructor({ registration = 'open', options = [] } = {}) {
    this.folder = mkdtempSync(join(tmpdir(), 'vestnik-web-'));
    this.options = ['--registration', registration, '--password-iterations', '1000', ...options];
    this.log = '';
  }

  async start() {
    this.port ??= await freePort();
    this.url = `http://127.0.0.1:${this.port}/`;
    const child = spawn(serverPath, [
      'serve', '--data', join(this.folder, 'vestnik.db'), '--listen', `127.0.0.1:${this.port}`, ...this.options,
    ], { stdio: ['ignore', 'pipe', 'pipe'] });
    this.child = child;
    this.exited = new Promise((resolve) => { child.on('exit', resolve); });
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (bytes) => { this.log += bytes; });
    }
    const until = Date.now() + 20_000;
    while (Date.now() < until) {
      if (child.exitCode !== null) throw new Error(`the server did not start:\n${this.log}`);
      if (await fetch(this.url).then((answer) => answer.ok, () => false)) return this;
      await new Promise((resolve) => { setTimeout(resolve, 30); });
    }
    throw new Error(`the server does not answer:\n${this.log}`);
  }

  /** @param {NodeJS.Signals} [signal] */
  async stop(signal = 'SIGKILL') {
    this.child?.kill(signal);
    await this.exited;
  }

  async end() {
    await this.stop();
    rmSync(this.folder, { recursive: true, force: true });
  }

  /**
   * Runs a command of the server's on the same data.
   * @param {...string} args
   */
  command(...args) {
    return execFileSync(serverPath, ['--data', join(this.folder, 'vestnik.db'), ...args], {
      encoding: 'utf8', input: `${PASSWORD}\n`,
    });
  }
}

/** Complaints of pages: each would be a bug. */
export class Watch {
  /** @type {string[]} */
  problems = [];

  /**
   * @param {import('playwright-core').Page} page
   * @param {string} origin
   */
  follow(page, origin) {
    page.on('pageerror', (error) => this.problems.push(`error: ${error.stack}`));
    page.on('console', (message) => {
      const text = message.text();
      const isExpected = /WebSocket connection|ERR_CONNECTION|Failed to load resource/.test(text);
      if (message.type() === 'error' && !isExpected) this.problems.push(`console: ${text}`);
      if (/Content Security Policy|TrustedHTML|TrustedScript/.test(text)) this.problems.push(`policy: ${text}`);
    });
    page.on('request', (request) => {
      const url = new URL(request.url());
      if (['http:', 'https:', 'ws:', 'wss:'].includes(url.protocol) && url.host !== new URL(origin).host) {
        this.problems.push(`another origin: ${url}`);
      }
    });
  }
}

export const PASSWORD = 'correct horse battery';

/**
 * @param {import('playwright-core').Page} page
 * @param {string} name
 */
export async function register(page, name) {
  const create = page.getByRole('button', { name: 'Create an account' });
  const submit = page.getByRole('button', { name: 'Register' });
  await create.or(submit).waitFor();
  if (await submit.count() === 0) await create.click();
  await page.getByRole('textbox', { name: 'Name' }).fill(name);
  await page.getByRole('textbox', { name: 'Password', exact: true }).fill(PASSWORD);
  await page.getByRole('button', { name: 'Register' }).click();
  await page.getByRole('navigation', { name: 'Chats' }).waitFor();
}

/**
 * @param {import('playwright-core').Page} page
 * @param {string} name
 * @param {string} [password]
 */
export async function logIn(page, name, password = PASSWORD) {
  await page.getByRole('textbox', { name: 'Name' }).fill(name);
  await page.getByRole('textbox', { name: 'Password', exact: true }).fill(password);
  await page.getByRole('button', { name: 'Log in' }).click();
  await page.getByRole('navigation', { name: 'Chats' }).waitFor();
}

/**
 * @param {import('playwright-core').Page} page
 * @param {string} name
 */
export async function createChat(page, name) {
  await page.getByRole('button', { name: 'New chat' }).first().click();
  await page.getByRole('textbox', { name: 'Chat name' }).fill(name);
  await page.getByRole('dialog').getByRole('button', { name: 'Create' }).click();
  await page.getByRole('textbox', { name: 'Message', exact: true }).waitFor();
}

/**
 * @param {import('playwright-core').Page} page
 * @param {string} name
 */
export async function joinChat(page, name) {
  await page.getByRole('button', { name: 'New chat' }).first().click();
  await page.getByRole('textbox', { name: 'Find a chat or person' }).fill(name);
  await page.getByRole('dialog').getByRole('button', { name }).first().click();
  await page.getByRole('textbox', { name: 'Message', exact: true }).waitFor();
}

/**
 * @param {import('playwright-core').Page} page
 * @param {string} text
 */
export async function send(page, text) {
  const box = page.getByRole('textbox', { name: 'Message', exact: true });
  await box.fill(text);
  await box.press('Enter');
}

/** @param {import('playwright-core').Page} page */
export const messages = (page) => page.getByRole('log', { name: 'Messages' }).getByRole('article');

/**
 * What a browser has stored of the user who is logged in.
 * @param {import('playwright-core').Page} page
 * @returns {Promise<{messages: {id: number, text: string, sender: number}[], outbox: number}>}
 */
export function stored(page) {
  return page.evaluate(async () => {
    const wait = (/** @type {IDBRequest} */ request) => new Promise((resolve, reject) => {
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
    const all = await indexedDB.databases();
    const found = all.find(({ name }) => /^vestnik-\d+-/.test(name ?? ''));
    if (!found?.name) return { messages: [], outbox: 0 };
    const db = await wait(indexedDB.open(found.name));
    const transaction = db.transaction(['messages', 'outbox']);
    const [list, outbox] = await Promise.all([
      wait(transaction.objectStore('messages').getAll()), wait(transaction.objectStore('outbox').count()),
    ]);
    db.close();
    return { messages: list, outbox };
  });
}

/**
 * @template T
 * @param {() => Promise<T>} probe
 * @param {(value: T) => boolean} isGood
 * @param {number} [limitMs]
 * @returns {Promise<T>}
 */
export async function until(probe, isGood, limitMs = 15_000) {
  const end = Date.now() + limitMs;
  for (;;) {
    const value = await probe();
    if (isGood(value)) return value;
    if (Date.now() > end) throw new Error(`it did not come to that: ${JSON.stringify(value)?.slice(0, 2000)}`);
    await new Promise((resolve) => { setTimeout(resolve, 50); });
  }
}
