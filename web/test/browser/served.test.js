/**
 * What the server sends of the client: it means what the sources mean, and it is small.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { get } from 'node:http';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';

import ts from 'typescript';

import { launch } from './browser.js';
import { RealServer } from './real.js';

const WEB = fileURLToPath(new URL('../..', import.meta.url));
/** What a first visit loads before somebody can log in. */
const FIRST_MODULES_MAX = 10;
const FIRST_BYTES_MAX = 30 * 1024;
/** The same with styles, and with what it takes to talk in a chat. */
const TALK_BYTES_MAX = 64 * 1024;
/** Every dialog, in one language. */
const ALL_BYTES_MAX = 84 * 1024;

/** @type {RealServer} */
let server;
/** @type {Map<string, {size: number, text: string}>} by the path of the source */
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
 * @returns {Promise<{size: number, text: string}>} its size as it is sent
 */
function load(path) {
  return new Promise((resolve, reject) => {
    get(new URL(path, server.url), { headers: { 'Accept-Encoding': 'gzip' } }, (answer) => {
      /** @type {Buffer[]} */
      const pieces = [];
      answer.on('data', (piece) => pieces.push(piece));
      answer.on('end', () => {
        const bytes = Buffer.concat(pieces);
        const isShort = answer.headers['content-encoding'] === undefined;
        resolve({ size: bytes.length, text: (isShort ? bytes : gunzipSync(bytes)).toString() });
      });
    }).on('error', reject);
  });
}

const scripts = () => [...parts.keys()].filter((name) => name.endsWith('.js'));
/** @param {Iterable<string>} names */
const sizeOf = (names) => [...names].reduce((sum, name) => sum + (parts.get(name)?.size ?? 0), 0);

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
  assert.ok(scripts().length > 30, 'the server names its parts');
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
  console.log(`first use: ${first.size} modules, ${sizeOf(first)} bytes compressed`);
  assert.ok(first.size <= FIRST_MODULES_MAX, [...first].join(' '));
  assert.ok(sizeOf(first) <= FIRST_BYTES_MAX, String(sizeOf(first)));
});

test('what it takes to talk is small', () => {
  const names = closure('src/main.js', new Set(['index.html', 'app.css']));
  for (const name of ['app', 'cards', 'chat']) closure(`src/ui/${name}.js`, names);
  for (const name of ['history', 'user', 'installed']) closure(`src/${name}.js`, names);
  console.log(`to talk: ${names.size} parts, ${sizeOf(names)} bytes compressed`);
  assert.ok(sizeOf(names) <= TALK_BYTES_MAX, String(sizeOf(names)));
});

test('all of it is small', () => {
  const all = [...parts.keys()].filter((name) => !/types\.js$|lang\//.test(name));
  console.log(`all: ${sizeOf(all)} bytes compressed`);
  assert.ok(sizeOf(all) <= ALL_BYTES_MAX, String(sizeOf(all)));
});
