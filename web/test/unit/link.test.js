import assert from 'node:assert/strict';
import test from 'node:test';

import { Link } from '../../src/link.js';
import { FrameStream, TO_CLIENT, TO_SERVER, Writer, frame } from '../../src/wire.js';

/** A socket whose other end the test plays. */
class Socket {
  static OPEN = 1;
  static all = [];
  readyState = 0;
  bufferedAmount = 0;
  frames = [];
  #stream = new FrameStream();

  constructor(url, protocol) {
    this.protocol = protocol;
    Socket.all.push(this);
  }

  send(bytes) {
    this.frames.push(...this.#stream.push(bytes));
  }

  close() {
    this.readyState = 3;
  }

  open() {
    this.readyState = 1;
    this.onopen();
  }

  receive(...frames) {
    const bytes = new Uint8Array(frames.flatMap((each) => [...each]));
    this.onmessage({ data: bytes.buffer });
  }

  /** Accepts a request of the client. */
  accept(request, body = new Uint8Array(0)) {
    this.receive(frame(TO_CLIENT.ACCEPTED[0], request.task, body));
  }

  of(name) {
    return this.frames.filter(({ purpose }) => purpose === TO_SERVER[name][0]);
  }
}

const hello = (() => {
  const body = new Writer();
  body.u8(1); body.u8(1); body.u32(65536); body.u32(16384); body.str('vestnik'); body.u64(1000);
  body.str(''); body.u8(2);
  return body.done();
})();

const settle = async () => {
  for (let turns = 0; turns < 10; turns += 1) await Promise.resolve();
};

/** A link on made-up time; `greeted` opens its newest socket. */
function make(context, { isVisible = true, isWanted = true } = {}) {
  context.mock.timers.enable({ apis: ['setTimeout', 'Date'] });
  Socket.all = [];
  const log = [];
  const link = new Link('ws://test', {
    onGreeted: async () => void log.push('greeted'),
    onLost: (state) => log.push(state),
    onNotification: (name) => log.push(name),
    onDeauth: () => log.push('deauth'),
    isWanted: () => isWanted,
  }, { WebSocket: Socket, isVisible: () => isVisible });
  link.start();
  return {
    link,
    log,
    tick: async (ms) => {
      context.mock.timers.tick(ms);
      await settle();
    },
    socket: () => Socket.all.at(-1),
    greet: async () => {
      const socket = Socket.all.at(-1);
      socket.open();
      await settle();
      socket.accept(socket.frames[0], hello);
      await settle();
      return socket;
    },
  };
}

test('it greets with 1.1 over the subprotocol', async (context) => {
  const { greet, log } = make(context);
  const socket = await greet();
  assert.equal(socket.protocol, 'purpose');
  assert.deepEqual([...socket.frames[0].body], [1, 1]);
  assert.deepEqual(log, ['greeted']);
});

test('a HEARTBEAT each 25 s while visible; without an answer within 3 s the socket is given up', async (context) => {
  const { greet, tick, log } = make(context);
  const socket = await greet();
  await tick(25_000);
  assert.equal(socket.of('HEARTBEAT').length, 1);
  socket.accept(socket.of('HEARTBEAT')[0]);
  await settle();
  await tick(25_000);
  assert.equal(socket.of('HEARTBEAT').length, 2);
  await tick(2_900);
  assert.deepEqual(log, ['greeted']);
  await tick(200);
  assert.deepEqual(log, ['greeted', 'connecting']);
  assert.equal(socket.readyState, 3);
});

test('nothing is sent while nobody looks', async (context) => {
  const { greet, tick } = make(context, { isVisible: false });
  const socket = await greet();
  await tick(25_000);
  await tick(25_000);
  assert.equal(socket.of('HEARTBEAT').length, 0);
});

test('a slow line on which bytes move is not dead', async (context) => {
  const { link, greet, tick, log } = make(context);
  const socket = await greet();
  socket.bufferedAmount = 500_000;
  link.wake();
  await settle();
  for (let rounds = 0; rounds < 5; rounds += 1) {
    socket.bufferedAmount -= 50_000;
    await tick(3_000);
  }
  assert.deepEqual(log, ['greeted']);
  await tick(3_000);
  assert.deepEqual(log, ['greeted', 'connecting']);
});

test('it tries again for ever, more and more rarely, at least every 30 s', async (context) => {
  const { tick, log, socket } = make(context);
  const gaps = [];
  let last = Date.now();
  for (let attempt = 1; attempt <= 30; attempt += 1) {
    socket().onclose();
    while (Socket.all.length === attempt) await tick(50);
    gaps.push(Date.now() - last);
    last = Date.now();
  }
  assert.equal(log.filter((state) => state === 'offline').length, 30);
  assert.ok(gaps[0] <= 250, String(gaps[0]));
  assert.ok(gaps.every((gap) => gap <= 30_100));
  assert.ok(gaps.at(-1) >= 15_000);
});

test('waking connects at once', async (context) => {
  const { link, tick, socket } = make(context);
  for (let attempt = 1; attempt <= 10; attempt += 1) {
    socket().onclose();
    while (Socket.all.length === attempt) await tick(500);
  }
  socket().onclose();
  const count = Socket.all.length;
  link.wake();
  assert.equal(Socket.all.length, count + 1);
});

test('waking asks a connection that seems alive', async (context) => {
  const { link, greet, tick, log } = make(context);
  const socket = await greet();
  link.wake();
  link.wake();
  await settle();
  assert.equal(socket.of('HEARTBEAT').length, 1);
  await tick(3_000);
  assert.deepEqual(log, ['greeted', 'connecting']);
});

test('an attempt without an answer ends', async (context) => {
  const { tick, log } = make(context);
  await tick(10_000);
  assert.deepEqual(log, ['offline']);
});

test('what waits for an answer fails as offline when the connection breaks', async (context) => {
  const { link, greet } = make(context);
  const socket = await greet();
  const answer = link.request('GET_MY_CHATS');
  await settle();
  socket.onclose();
  await assert.rejects(answer, { code: 'offline' });
  await assert.rejects(link.request('GET_MY_CHATS'), { code: 'offline' });
});

test('DISCONNECT ends the connection, and it comes back', async (context) => {
  const { greet, log, tick } = make(context);
  const socket = await greet();
  socket.receive(frame(TO_CLIENT.DISCONNECT[0], 0, new Uint8Array(0)));
  assert.deepEqual(log, ['greeted', 'connecting']);
  await tick(300);
  assert.equal(Socket.all.length, 2);
});

test('a connection that is not wanted does not come back', async (context) => {
  const { greet, tick } = make(context, { isWanted: false });
  const socket = await greet();
  socket.onclose();
  await tick(60_000);
  assert.equal(Socket.all.length, 1);
});

test('the server\'s HEARTBEAT is answered with its bytes', async (context) => {
  const { greet } = make(context);
  const socket = await greet();
  socket.receive(frame(TO_CLIENT.HEARTBEAT[0], 0, Uint8Array.of(7, 8)));
  await settle();
  const answer = socket.of('ACCEPTED')[0];
  assert.deepEqual([answer.task, ...answer.body], [0, 7, 8]);
});

test('bytes that break the protocol end the connection', async (context) => {
  const { greet, log } = make(context);
  context.mock.method(console, 'error', () => undefined);
  const socket = await greet();
  socket.receive(Uint8Array.of(255, 255, 255, 255, 0, 1));
  assert.deepEqual(log, ['greeted', 'connecting']);
});

test('more than 255 requests wait for a free task', async (context) => {
  const { link, greet } = make(context);
  const socket = await greet();
  const answers = Array.from({ length: 300 }, () => link.request('LOGOFF'));
  await settle();
  assert.equal(socket.of('LOGOFF').length, 255);
  assert.equal(new Set(socket.of('LOGOFF').map(({ task }) => task)).size, 255);
  while (socket.of('LOGOFF').length > 0) {
    const requests = socket.of('LOGOFF');
    socket.frames = [];
    for (const request of requests) socket.accept(request);
    await settle();
  }
  await Promise.all(answers);
});

test('the pieces of a long answer arrive one by one, or put together', async (context) => {
  const { link, greet } = make(context);
  const socket = await greet();
  const body = (text) => { const writer = new Writer(); writer.u32(1); writer.str(text); return writer.done(); };
  const whole = link.request('GET_REACTIONS', [1, 1]);
  const pieces = [];
  const done = link.request('GET_REACTIONS', [1, 1], (piece) => pieces.push(piece.length));
  await settle();
  for (const { task } of socket.of('GET_REACTIONS')) {
    socket.receive(frame(TO_CLIENT.PART[0], task, body('a')), frame(TO_CLIENT.PART[0], task, body('b')),
      frame(TO_CLIENT.ACCEPTED[0], task, new Uint8Array(0)));
  }
  assert.deepEqual((await whole).map(({ emoji }) => emoji), ['a', 'b']);
  await done;
  assert.deepEqual(pieces, [1, 1]);
});
