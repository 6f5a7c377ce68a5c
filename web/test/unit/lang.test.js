import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { fileURLToPath } from 'node:url';

import russian from '../../src/lang/ru.js';

const SRC = fileURLToPath(new URL('../../src', import.meta.url));

/** All texts of the interface: what `t` and `tn` get, and the tables of reasons and notices. */
function keys() {
  const found = { plain: new Set(), plural: new Set() };
  for (const name of readdirSync(SRC, { recursive: true, encoding: 'utf8' })) {
    if (!name.endsWith('.js') || name.startsWith('lang')) continue;
    const text = readFileSync(join(SRC, name), 'utf8');
    for (const [, key] of text.matchAll(/\bt\(\s*'([^'\n]*)'/g)) found.plain.add(key);
    for (const [, key] of text.matchAll(/\btn\(\s*'[^'\n]*',\s*'([^'\n]*)'/g)) found.plural.add(key);
    for (const [, table] of text.matchAll(/const (?:REASONS|NOTICES) = \{([^}]*(?:\{n\}[^}]*)*)\};/g)) {
      for (const [, key] of table.matchAll(/: '([^'\n]*)',/g)) found.plain.add(key);
    }
  }
  return found;
}

const slots = (text) => (text.match(/\{\w+\}/g) ?? []).sort();

test('every text is there in Russian, with the same values in it', () => {
  const { plain, plural } = keys();
  assert.ok(plain.size > 150, `only ${plain.size} texts were found`);
  for (const key of plain) {
    assert.equal(typeof russian[key], 'string', `not translated: ${key}`);
    assert.deepEqual(slots(russian[key]), slots(key), key);
  }
  for (const key of plural) {
    assert.ok(Array.isArray(russian[key]), `not translated: ${key}`);
    assert.equal(russian[key].length, 3, key);
    for (const form of russian[key]) assert.deepEqual(slots(form), slots(key), form);
  }
});

test('nothing is translated that is not shown', () => {
  const { plain, plural } = keys();
  const unused = Object.keys(russian).filter((key) => !plain.has(key) && !plural.has(key));
  assert.deepEqual(unused, []);
});
