import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';

import {
  FrameStream, Reader, TO_CLIENT, TO_SERVER, WireError, Writer, encodeExtras, encodeRequest, frame,
  readAnswer, readFailure, readMessage, readNotification, setApi,
} from '../../src/wire.js';

const hex = (text) => Uint8Array.from(text.trim().split(/\s+/), (byte) => parseInt(byte, 16));
const API_1_1 = { major: 1, minor: 1 };

test('the exchange of the protocol\'s last example, byte by byte', () => {
  assert.deepEqual(frame(TO_SERVER.HELLO[0], 1, encodeRequest('HELLO', [0, 1])),
    hex('02 00 00 00 20 01 00 01'));
  assert.deepEqual(
    frame(TO_SERVER.LOGIN[0], 2, encodeRequest('LOGIN', ['anna', 'correct horse'])),
    hex('13 00 00 00 21 02 61 6e 6e 61 00 63 6f 72 72 65 63 74 20 68 6f 72 73 65 00'));
  const send = encodeRequest('SEND_CHAT_MSG', [5, 'hi', 0x0102030405060708n]);
  assert.deepEqual(send, hex('05 00 00 00 68 69 00 08 07 06 05 04 03 02 01'));
  assert.deepEqual(readAnswer('SEND_CHAT_MSG', hex('07 00 00 00 00 00 00 00 40 42 0f 00 00 00 00 00')),
    { id: 7, created: 1_000_000 });
});

test('each purpose of docs/protocol.md is in the table under its byte, and no other', () => {
  const text = readFileSync(new URL('../../../docs/protocol.md', import.meta.url), 'utf8');
  // Kinds of extras have a table of their own.
  const extras = new Set(['REPLY', 'FILE', 'REACTIONS', 'ATTACH']);
  const rows = [...text.matchAll(/^\| (0x[0-9A-F]{2}) \| ([A-Z_]+)/gm)].filter(([, , name]) => !extras.has(name));
  const known = new Set([...Object.entries(TO_SERVER), ...Object.entries(TO_CLIENT)]
    .map(([name, [byte]]) => `${name} ${byte}`));
  assert.ok(rows.length > 40, 'the tables of the document are found');
  for (const [, byte, name] of rows) assert.ok(known.has(`${name} ${Number(byte)}`), `${byte} ${name}`);
  for (const table of [TO_SERVER, TO_CLIENT]) {
    const bytes = Object.values(table).map(([byte]) => byte);
    assert.equal(new Set(bytes).size, bytes.length, 'a byte stands for one purpose');
  }
  // Where the document has the purposes of API 1.1, it has all that are here.
  if (!/REACTION_NOTIFY/.test(text)) return;
  const documented = new Set(rows.map(([, byte, name]) => `${name} ${Number(byte)}`));
  for (const entry of known) assert.ok(documented.has(entry), entry);
});

test('each purpose of the server\'s table has its byte here', () => {
  const text = readFileSync(new URL('../../../crates/purpose/src/wire/purpose.rs', import.meta.url), 'utf8');
  const [toServer, toClient] = text.split('ToClient:');
  for (const [part, table] of [[toServer, TO_SERVER], [toClient, TO_CLIENT]]) {
    const rows = [...part.matchAll(/^\s*(0x[0-9A-F]{2}) \w+\s+"([A-Z_]+)"/gm)];
    assert.ok(rows.length > 10);
    for (const [, byte, name] of rows) assert.equal(table[name]?.[0], Number(byte), name);
  }
});

/** A message with all extras, as the server writes it. */
function longMessage() {
  const file = new Writer();
  file.u64(9); file.u64(1234); file.u16(640); file.u16(480); file.str('image/png'); file.str('cat.png');
  const reactions = new Writer();
  reactions.str('👍'); reactions.u16(30); reactions.u8(2); reactions.u32(1); reactions.u32(2);
  const reply = new Writer();
  reply.u64(41);
  const extras = new Writer();
  for (const [kind, body] of [[1, reply], [2, file], [0x7f, reply], [3, reactions]]) {
    extras.u8(kind); extras.u16(body.length); extras.raw(body.done());
  }
  const message = new Writer();
  message.u64(42); message.u32(3); message.u64(1000); message.u64(2000); message.u8(1);
  message.str('\uFEFFпривет'); message.u16(extras.length); message.raw(extras.done());
  return message.done();
}

test('a message with extras reads back; extras of unknown kinds are skipped', () => {
  setApi(API_1_1);
  const message = readMessage(new Reader(longMessage()));
  assert.deepEqual(message, {
    id: 42, sender: 3, created: 1000, updated: 2000, edited: true, deleted: false,
    text: '\uFEFFпривет', reply: 41,
    files: [{ id: 9, size: 1234, width: 640, height: 480, type: 'image/png', name: 'cat.png' }],
    reactions: [{ emoji: '👍', count: 30, shown: [1, 2] }],
  });
});

test('a body that ends early is refused, wherever it is cut', () => {
  setApi(API_1_1);
  const whole = longMessage();
  for (let length = 0; length < whole.length; length += 1) {
    assert.throws(() => readMessage(new Reader(whole.subarray(0, length))), WireError);
  }
});

test('hostile lengths reserve nothing and are refused', () => {
  assert.throws(() => new FrameStream().push(hex('ff ff ff ff 00 01')), WireError);
  assert.throws(() => new FrameStream().push(hex('01 00 20 00 00 01')), WireError);
  assert.throws(() => new Reader(hex('ff ff ff ff ff ff ff ff')).u64(), WireError);
  setApi(API_1_1);
  const extras = new Writer();
  extras.u64(1); extras.u32(1); extras.u64(1); extras.u64(1); extras.u8(0); extras.str('');
  extras.u16(3); extras.u8(2); extras.u16(0xffff);
  assert.throws(() => readMessage(new Reader(extras.done())), WireError);
});

test('frames are found wherever the stream is cut', () => {
  const frames = [frame(0, 1, hex('01 02')), frame(0x20, 2, new Uint8Array(0)), frame(4, 3, new Uint8Array(300))];
  const stream = new Uint8Array(frames.flatMap((bytes) => [...bytes]));
  for (let cut = 0; cut <= stream.length; cut += 1) {
    const parser = new FrameStream();
    const found = [...parser.push(stream.slice(0, cut)), ...parser.push(stream.slice(cut))];
    assert.deepEqual(found.map(({ purpose, task, body }) => [purpose, task, body.length]),
      [[0, 1, 2], [0x20, 2, 0], [4, 3, 300]]);
  }
  const parser = new FrameStream();
  let count = 0;
  for (const byte of stream) count += parser.push(Uint8Array.of(byte)).length;
  assert.equal(count, 3);
});

test('random bytes never do more than throw a WireError', () => {
  setApi(API_1_1);
  let seed = 1;
  const random = () => (seed = (seed * 48271) % 0x7fffffff);
  for (let round = 0; round < 20_000; round += 1) {
    const bytes = Uint8Array.from({ length: random() % 60 }, () => random() & 0xff & (random() & 1 ? 0x0f : 0xff));
    for (const name of ['HELLO', 'GET_MY_CHATS', 'REQUEST_UPDATES', 'FIND_USERS', 'GET_INVITES', 'GET_SESSIONS']) {
      try {
        readAnswer(name, bytes);
      } catch (error) {
        assert.ok(error instanceof WireError, String(error));
      }
    }
    try {
      readNotification('MSG_NOTIFY', bytes);
    } catch (error) {
      assert.ok(error instanceof WireError, String(error));
    }
  }
});

test('values left out at the end are not written', () => {
  assert.deepEqual(encodeRequest('JOIN_CHAT', [1]), hex('01 00 00 00'));
  assert.deepEqual(encodeRequest('JOIN_CHAT', [1, 'a']), hex('01 00 00 00 61 00'));
  assert.deepEqual(encodeRequest('SUBSCRIBE_PUSH', ['']), hex('00'));
});

test('a NUL in a text cannot end it', () => {
  assert.deepEqual(encodeRequest('GET_USER_ID', ['a\0b']), hex('61 62 00'));
});

test('extras of a send are entries without a length in front', () => {
  assert.equal(encodeExtras(0, []), undefined);
  assert.deepEqual(encodeExtras(1, [2]),
    hex('01 08 00 01 00 00 00 00 00 00 00 04 08 00 02 00 00 00 00 00 00 00'));
});

test('HELLO decides how long structures are', () => {
  const chat = new Writer();
  chat.u32(1); chat.u8(0); chat.u8(0x0b); chat.u32(2); chat.u64(3); chat.u64(4); chat.u32(5); chat.str('n'); chat.str('t');
  setApi({ major: 1, minor: 0 });
  assert.equal(readAnswer('GET_CHAT', chat.done()).notify, 0);
  setApi(API_1_1);
  assert.throws(() => readAnswer('GET_CHAT', chat.done()), WireError);
  chat.u8(2);
  const info = readAnswer('GET_CHAT', chat.done());
  assert.deepEqual([info.notify, info.isClosed, info.hasPassword, info.isMember, info.isAdmin], [2, true, true, true, false]);
});

test('a reason is a code, words and the number in them', () => {
  assert.deepEqual(readFailure('rate-limited: wait 12 s'), { code: 'rate-limited', text: 'wait 12 s', number: 12 });
  assert.deepEqual(readFailure('odd'), { code: 'declined', text: 'odd', number: 0 });
});
