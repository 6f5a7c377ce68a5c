/**
 * What the server sends of the client: it means what the sources mean, and it is small.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { get } from 'node:http';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { brotliDecompressSync, gunzipSync } from 'node:zlib';

import ts from 'typescript';

import { launch } from './browser.js';
import { RealServer } from './real.js';

const WEB = fileURLToPath(new URL('../..', import.meta.url));
/** What a first visit loads before somebody can log in. */
const FIRST_MODULES_MAX = 10;
/**
 * KiB that are sent at most: `first` before somebody can log in, `talk` with styles and what it
 * takes to talk in a chat, `all` with every dialog, in one language. Browsers ask for Brotli over
 * https, and for gzip over plain HTTP.
 * @type {Record<'br' | 'gzip', Record<string, number>>}
 */
const KIB_MAX = {
  br: { first: 26, talk: 55, all: 74 },
  gzip: { first: 29, talk: 62, all: 84 },
};

/** @type {RealServer} */
let server;
/** @type {Map<string, {br: number, gzip: number, text: string}>} by the path of the source */
const parts = new Map();

before(async () => {
  server = await new RealServer().start();
  const worker = (await load('/sw.js')).text;
  const paths = JSON.parse(/\.parse\('(\[.*?\])'\)/.exec(worker)?.[1] ?? '[]');
  for (const path of ['/', '/sw.js', ...paths]) {
    const name = path === '/' ? 'index.html' : path.replace(/^\/(a\/[0-9a-f]+\/)?/, '');
    if (/\.(js|css|html)$/.test(name)) parts.set(name, await load(path));
  }
});
after(() => server?.end());

/**
 * @param {string} path
 * @returns {Promise<{br: number, gzip: number, text: string}>} its sizes as it is sent
 */
async function load(path) {
  const [br, gzip] = [await fetchAs(path, 'br'), await fetchAs(path, 'gzip')];
  assert.equal(br.text, gzip.text, path);
  return { br: br.size, gzip: gzip.size, text: br.text };
}

const UNPACK = { br: brotliDecompressSync, gzip: gunzipSync, none: (/** @type {Buffer} */ bytes) => bytes };

/**
 * @param {string} path
 * @param {'br' | 'gzip'} coding
 * @returns {Promise<{size: number, text: string}>}
 */
function fetchAs(path, coding) {
  return new Promise((resolve, reject) => {
    get(new URL(path, server.url), { headers: { 'Accept-Encoding': coding } }, (answer) => {
      /** @type {Buffer[]} */
      const pieces = [];
      answer.on('data', (piece) => pieces.push(piece));
      answer.on('end', () => {
        const bytes = Buffer.concat(pieces);
        const sent = answer.headers['content-encoding'] ?? 'none';
        resolve({ size: bytes.length, text: UNPACK[sent](bytes).toString() });
      });
    }).on('error', reject);
  });
}

const scripts = () => [...parts.keys()].filter((name) => name.endsWith('.js'));

/**
 * Compares the size of parts with what it may be.
 * @param {string} what
 * @param {Iterable<string>} names
 */
function checkSize(what, names) {
  for (const coding of /** @type {const} */ (['br', 'gzip'])) {
    const bytes = [...names].reduce((sum, name) => sum + (parts.get(name)?.[coding] ?? 0), 0);
    console.log(`${what}: ${[...names].length} parts, ${bytes} bytes of ${coding}`);
    assert.ok(bytes <= 1024 * KIB_MAX[coding][what], `${what}: ${bytes} bytes of ${coding}`);
  }
}

/**
 * A module and all that it imports without import().
 * @param {string} path
 * @param {Set<string>} [found]
 */
function closure(path, found = new Set()) {
  if (found.has(path)) return found;
  found.add(path);
  const source = readFileSync(join(WEB, path), 'utf8');
  for (const [, name] of source.matchAll(/^(?:import|\} from|export .* from)[^;(]*'(\.[^']+)';$/gm)) {
    closure(join(dirname(path), name), found);
  }
  return found;
}

/** @param {string} text @returns {string} its syntax tree */
function treeOf(text) {
  /** @type {string[]} */
  const nodes = [];
  const visit = (/** @type {any} */ node, depth = 0) => {
    nodes.push(`${depth} ${node.kind} ${node.text ?? ''}`);
    ts.forEachChild(node, (child) => visit(child, depth + 1));
  };
  ts.forEachChild(ts.createSourceFile('a.js', text, ts.ScriptTarget.ESNext), (node) => visit(node));
  return nodes.join('\n');
}

test('a script means what its source means', () => {
  assert.ok(scripts().length > 25, 'the server names its parts');
  for (const name of scripts()) {
    const source = readFileSync(join(WEB, name), 'utf8');
    const served = parts.get(name)?.text ?? '';
    assert.doesNotMatch(served, /\/\*\*|^\s*\/\//m, `${name} has comments`);
    if (name === 'sw.js') continue;
    assert.ok(treeOf(served) === treeOf(source), `${name} means something else`);
  }
});

test('styles mean what their source means', async () => {
  const browser = await launch();
  const page = await browser.newPage();
  const [served, source] = await page.evaluate((texts) => texts.map((text) => {
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(text);
    // A value with var() is kept as it was written.
    return [...sheet.cssRules].map(({ cssText }) => cssText.replaceAll(', ', ','));
  }), [parts.get('app.css')?.text ?? '', readFileSync(join(WEB, 'app.css'), 'utf8')]);
  await browser.close();
  assert.ok(source.length > 300);
  assert.deepEqual(served, source);
});

test('the first use takes few modules', () => {
  const first = closure('src/main.js');
  for (const name of ['src/ui/app.js', 'src/ui/cards.js']) closure(name, first);
  assert.ok(first.size <= FIRST_MODULES_MAX, [...first].join(' '));
  checkSize('first', first);
});

test('what it takes to talk is small', () => {
  const names = closure('src/main.js', new Set(['index.html', 'app.css']));
  for (const name of ['app', 'cards', 'chat']) closure(`src/ui/${name}.js`, names);
  for (const name of ['history', 'user', 'installed']) closure(`src/${name}.js`, names);
  checkSize('talk', names);
});

test('all of it is small', () => {
  checkSize('all', [...parts.keys()].filter((name) => !/types\.js$|lang\//.test(name)));
});
