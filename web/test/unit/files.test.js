import assert from 'node:assert/strict';
import test from 'node:test';

import { cleanName, fetchFile, upload } from '../../src/files.js';

const OFFLINE = { code: 'offline', text: '', number: 0 };
const INFO = { name: 'a.bin', type: 'application/octet-stream', width: 0, height: 0 };

/** A server that keeps files, over a connection that breaks as `breaks` says for each request. */
function make(breaks = () => '') {
  const files = new Map();
  const log = [];
  let lastId = 0;
  let isOnline = true;
  const answer = (name, values) => {
    log.push(name);
    if (name === 'BEGIN_FILE') {
      files.set((lastId += 1), { size: values[1], bytes: [] });
      return lastId;
    }
    const [id, offset, bytes] = values;
    const file = files.get(id);
    if (!file) throw { code: 'no-such-file', text: '', number: 0 };
    if (name === 'END_FILE') return void files.delete(id);
    if (name === 'GET_FILE') return Uint8Array.from(file.bytes.slice(offset, offset + bytes));
    if (offset !== file.bytes.length) {
      throw { code: 'bad-offset', text: `${file.bytes.length} bytes are stored`, number: file.bytes.length };
    }
    file.bytes.push(...bytes);
    return file.bytes.length;
  };
  let count = 0;
  const engine = {
    online: async () => {
      isOnline = true;
    },
    link: {
      request: (name, values) => new Promise((resolve, reject) => {
        const what = breaks(name, (count += 1), files);
        if (!isOnline) return reject(OFFLINE);
        if (what === 'before') isOnline = false;
        if (!isOnline) return reject(OFFLINE);
        try {
          const value = answer(name, values);
          if (what === 'after') isOnline = false;
          return setImmediate(() => (isOnline ? resolve(value) : reject(OFFLINE)));
        } catch (failure) {
          return setImmediate(() => reject(failure));
        }
      }),
    },
  };
  return { engine, files, log };
}

const content = (size) => Uint8Array.from({ length: size }, (_, index) => (index * 31) & 0xff);

test('a file arrives whole', async () => {
  const { engine, files } = make();
  const bytes = content(500_001);
  const seen = [];
  const info = await upload(engine, { onProgress: (sent) => seen.push(sent) }, 5, new Blob([bytes]), INFO);
  assert.deepEqual(info, { id: 1, size: 500_001, ...INFO });
  assert.deepEqual(Uint8Array.from(files.get(1).bytes), bytes);
  assert.ok(seen.every((sent, index) => index === 0 || sent > seen[index - 1]));
  assert.equal(seen.at(-1), 500_001);
});

test('wherever the connection breaks, the upload goes on where it was', async () => {
  const bytes = content(400_000);
  for (let at = 2; at <= 9; at += 1) {
    for (const when of ['before', 'after']) {
      const { engine, files, log } = make((name, count) => (count === at ? when : ''));
      await upload(engine, {}, 5, new Blob([bytes]), INFO);
      assert.equal(log.filter((name) => name === 'BEGIN_FILE').length, 1);
      assert.deepEqual(Uint8Array.from(files.get(1).bytes), bytes, `${when} request ${at}`);
    }
  }
});

test('a part that the server has not kept is sent from the beginning', async () => {
  const { engine, files } = make((name, count, all) => {
    if (count === 5) all.clear();
    return '';
  });
  const bytes = content(400_000);
  const { id } = await upload(engine, {}, 5, new Blob([bytes]), INFO);
  assert.equal(id, 2);
  assert.deepEqual(Uint8Array.from(files.get(2).bytes), bytes);
});

test('a cancelled upload is taken back', async () => {
  const controller = new AbortController();
  const { engine, files } = make();
  const call = upload(engine, { signal: controller.signal, onProgress: () => controller.abort() }, 5, new Blob([content(900_000)]), INFO);
  await assert.rejects(call, { code: 'aborted' });
  await new Promise((resolve) => { setTimeout(resolve, 5); });
  assert.equal(files.size, 0);
});

test('what the server refuses ends the upload', async () => {
  const { engine } = make();
  engine.link.request = async () => {
    throw { code: 'quota-exceeded', text: 'no room', number: 0 };
  };
  await assert.rejects(upload(engine, {}, 5, new Blob([content(10)]), INFO), { code: 'quota-exceeded' });
});

test('a file is read whole, over a connection that breaks', async () => {
  const bytes = content(700_000);
  const { engine, files } = make((name, count) => (count === 3 ? 'before' : ''));
  files.set(9, { size: bytes.length, bytes: [...bytes] });
  const blob = await fetchFile(engine, {}, { id: 9, size: bytes.length, type: 'image/png' });
  assert.equal(blob.type, 'image/png');
  assert.deepEqual(new Uint8Array(await blob.arrayBuffer()), bytes);
});

test('a file that is shorter than announced ends as a failure', async () => {
  const { engine, files } = make();
  files.set(9, { size: 10, bytes: [1, 2, 3] });
  await assert.rejects(fetchFile(engine, {}, { id: 9, size: 10, type: 'image/png' }), { code: 'no-such-file' });
});

test('names fit the server', () => {
  assert.equal(cleanName('cat.png'), 'cat.png');
  assert.equal(cleanName('../../etc/passwd'), '.._.._etc_passwd');
  assert.equal(cleanName('a\\b\u0000c\n'), 'a_b_c_');
  assert.equal(cleanName('..'), 'file');
  assert.equal(cleanName(''), 'file');
  const long = cleanName(`${'ю'.repeat(300)}.jpeg`);
  assert.ok(new TextEncoder().encode(long).length <= 255);
  assert.ok(long.endsWith('ю.jpeg'));
});
