import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

import ts from 'typescript';

const WEB = fileURLToPath(new URL('../..', import.meta.url));
const FIRST_MODULES_MAX = 10;
const FIRST_BYTES_MAX = 30 * 1024;
/** Everything that can be loaded in one language. */
const ALL_BYTES_MAX = 94 * 1024;

/** As build.rs serves it. */
function served(path) {
  const left = [];
  let isInComment = false;
  for (const line of readFileSync(join(WEB, path), 'utf8').split('\n').map((each) => each.trim())) {
    const begins = !isInComment && line.startsWith('/*');
    const isCode = begins && /\*\/./.test(line);
    if (isInComment || (begins && !isCode)) isInComment = !line.endsWith('*/');
    else if (line !== '' && !line.startsWith('//')) left.push(line);
  }
  return left.join('\n');
}

const compressed = (path) => gzipSync(served(path), { level: 9 }).length;

const scripts = () => readdirSync(join(WEB, 'src'), { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.js')).map((name) => `src/${name}`);

/** A module and all that it imports without import(). */
function closure(path, found = new Set()) {
  if (found.has(path)) return found;
  found.add(path);
  for (const [, name] of served(path).matchAll(/^(?:import|\} from|export .* from)[^;(]*'(\.[^']+)';$/gm)) {
    closure(relative(WEB, join(WEB, dirname(path), name)), found);
  }
  return found;
}

test('the first use takes few modules', () => {
  const first = closure('src/main.js');
  closure('src/ui/app.js', first);
  closure('src/ui/cards.js', first);
  const bytes = [...first].reduce((sum, path) => sum + compressed(path), 0);
  console.log(`first use: ${first.size} modules, ${bytes} bytes compressed`);
  assert.ok(first.size <= FIRST_MODULES_MAX, [...first].join(' '));
  assert.ok(bytes <= FIRST_BYTES_MAX, String(bytes));
});

test('all of it is small', () => {
  const all = [...scripts().filter((path) => !/types\.js$|lang\/(?!en)/.test(path)), 'sw.js', 'app.css', 'index.html'];
  const bytes = all.reduce((sum, path) => sum + compressed(path), 0);
  console.log(`all: ${bytes} bytes compressed`);
  assert.ok(bytes <= ALL_BYTES_MAX, String(bytes));
});

test('no text in a script spans lines: the build takes lines apart', () => {
  for (const path of [...scripts(), 'sw.js']) {
    const text = served(path).replace(/'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"/g, "''");
    for (const line of text.split('\n')) {
      const ticks = line.replace(/\\`/g, '').replace(/\/(?:[^/\\\n[]|\\.|\[[^\]]*\])+\/[a-z]*/g, '').match(/`/g) ?? [];
      assert.equal(ticks.length % 2, 0, `${path}: ${line}`);
    }
  }
});

test('what is served means the same', () => {
  const compiled = (text) => ts.transpileModule(text, {
    compilerOptions: { removeComments: true, target: ts.ScriptTarget.ESNext, module: ts.ModuleKind.ESNext },
  }).outputText;
  for (const path of [...scripts(), 'sw.js']) {
    assert.equal(compiled(served(path)), compiled(readFileSync(join(WEB, path), 'utf8')), path);
  }
});
