import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { fileURLToPath } from 'node:url';

const WEB = fileURLToPath(new URL('../..', import.meta.url));

test('every part that the page, the worker and the manifest name is there', () => {
  let count = 0;
  for (const name of ['index.html', 'sw.js', 'manifest.webmanifest']) {
    for (const [, part] of readFileSync(join(WEB, name), 'utf8').matchAll(/%ASSETS%\/([\w./-]+)/g)) {
      assert.ok(existsSync(join(WEB, part)), `${name} names ${part}`);
      count += 1;
    }
  }
  assert.ok(count > 15);
});
