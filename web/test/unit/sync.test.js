import assert from 'node:assert/strict';
import test from 'node:test';

import { Database } from '../../src/db.js';
import { applyAll } from '../../src/history.js';
import { Sync, applyChange, whole } from '../../src/sync.js';

const ME = 1;
const OTHER = 2;
const CHATS = [10, 11, 12];

/** A repeatable source of numbers below `n`. */
function generator(seed) {
  let state = seed * 7919 + 17;
  return (n) => {
    state = (state * 48271) % 0x7fffffff;
    return state % n;
  };
}

const soon = () => new Promise((resolve) => { setImmediate(resolve); });
const OFFLINE = { code: 'offline', text: '', number: 0 };

/** What the server would do: the truth that copies are held against. */
class Model {
  time = 1000;
  lastId = 0;
  messages = new Map(CHATS.map((chat) => [chat, new Map()]));
  nonces = new Map();
  /** @type {Set<(chat: number, change: any) => void>} */
  listeners = new Set();

  tick() {
    return (this.time += 1);
  }

  create(chat, sender, text, from, nonce) {
    const key = `${chat} ${sender} ${nonce}`;
    const known = nonce === undefined ? undefined : this.nonces.get(key);
    if (known) return known;
    const created = this.tick();
    const message = {
      id: (this.lastId += 1), sender, created, updated: created, edited: false, deleted: false, text,
      reply: 0, files: [], reactions: [],
    };
    this.messages.get(chat).set(message.id, message);
    if (nonce !== undefined) this.nonces.set(key, message);
    this.notify(from, chat, whole(chat, message));
    return message;
  }

  patch(chat, id, patch, from) {
    const updated = this.tick();
    const next = { ...this.messages.get(chat).get(id), ...patch, updated };
    this.messages.get(chat).set(id, next);
    this.notify(from, chat, whole(chat, next));
    return updated;
  }

  react(chat, id, user, on, emoji, from) {
    const old = this.messages.get(chat).get(id);
    const is = old.reactions.some((each) => each.emoji === emoji && each.shown.includes(user));
    if (is === on) return old.updated;
    const change = { chat, id, updated: this.tick(), user, on, emoji };
    this.messages.get(chat).set(id, applyChange(old, change));
    this.notify(from, chat, change);
    return change.updated;
  }

  notify(from, chat, change) {
    for (const listener of this.listeners) if (listener !== from) listener(chat, change);
  }

  ascending(chat) {
    return [...this.messages.get(chat).values()].sort((a, b) => a.id - b.id);
  }

  newest() {
    return Math.max(0, ...CHATS.flatMap((chat) => this.ascending(chat).map(({ created }) => created)));
  }

  random(chat, random) {
    const all = this.ascending(chat).filter(({ deleted }) => !deleted);
    return all[random(Math.max(all.length, 1))];
  }
}

/** A browser: a Sync on storage that outlives it, and a connection that breaks. */
class Browser {
  isConnected = false;
  timeline = [];
  waiting = new Set();

  constructor(model, random, db) {
    this.model = model;
    this.random = random;
    this.db = db;
    this.start();
  }

  start() {
    const session = { isAlive: true };
    this.session = session;
    this.timeline = [];
    // A tab that was closed writes nothing any more.
    const forward = ['get', 'getMany', 'all', 'older', 'newer'].map((name) => [name, this.db[name].bind(this.db)]);
    const db = {
      ...Object.fromEntries(forward),
      write: (changes) => (session.isAlive ? this.db.write(changes) : new Promise(() => undefined)),
    };
    this.sync = new Sync(db, ME, {
      request: (name, values, onPart) => this.request(session, name, values, onPart),
      onChanged: (changes) => session.isAlive && this.#show(changes),
      onOutgoing: (chat, entries, sent) => sent && session.isAlive && this.#show([whole(chat, sent.message)]),
      onReset: () => { this.timeline = []; },
    });
    this.loaded = this.sync.load().then(async () => {
      this.timeline = await this.db.newer(CHATS[0], 0, 10_000);
    });
  }

  /** A timeline over the whole of the first chat, as a tab has it. */
  #show(changes) {
    this.timeline = applyAll(this.timeline, changes.filter(({ chat }) => chat === CHATS[0]), true, true);
  }

  async connect() {
    const { session } = this;
    await this.loaded;
    if (this.isConnected || session !== this.session) return;
    this.isConnected = true;
    this.listener = (chat, change) => {
      // While a long answer goes out a reaction comes as the whole message (protocol, section 5a).
      const message = this.streams > 0 && this.model.messages.get(chat).get(change.id);
      const sent = message ? whole(chat, message) : change;
      this.#deliver(() => this.sync.change([sent], true), message ? 'wire' : this.#last());
    };
    this.streams = this.queued = 0;
    this.model.listeners.add(this.listener);
    this.wire = this.stream = Promise.resolve();
    this.sync.ready();
    this.catching = this.sync.catchUp(this.model.newest()).catch(() => undefined);
  }

  disconnect() {
    if (!this.isConnected) return;
    this.isConnected = false;
    this.model.listeners.delete(this.listener);
    for (const reject of this.waiting) reject(OFFLINE);
    this.waiting.clear();
    this.sync.lost();
  }

  /** The tab is closed, and opened again. */
  crash() {
    this.disconnect();
    this.session.isAlive = false;
    this.start();
  }

  /** Everything from the server comes in one order, after a while, or never. */
  #deliver(job, wire = 'wire') {
    const { listener } = this;
    if (wire === 'stream') this.queued += 1;
    this[wire] = this[wire].then(async () => {
      for (let turns = this.random(wire === 'wire' ? 2 : 5); turns > 0; turns -= 1) await soon();
      if (listener !== this.listener || !this.isConnected) return;
      if (wire === 'stream') this.queued -= 1;
      if (this.random(60) === 0) this.disconnect();
      else job();
    });
  }

  /** Behind everything that was sent so far. */
  #last() {
    return this.queued > 0 ? 'stream' : 'wire';
  }

  request(session, name, values, onPart) {
    return new Promise((resolve, reject) => {
      if (!this.isConnected || session !== this.session) return reject(OFFLINE);
      if (this.random(40) === 0) {
        // The connection breaks before the server has it, or before the answer is here.
        if (this.random(2)) this.answer(name, values);
        this.disconnect();
        return reject(OFFLINE);
      }
      const parts = this.answer(name, values);
      // Notifications come between the pieces of a long answer.
      if (name === 'REQUEST_UPDATES') {
        this.streams += 1;
        for (const part of parts) this.#deliver(() => onPart(part), 'stream');
        this.#deliver(() => {
          this.streams -= 1;
          resolve();
        }, 'stream');
      } else {
        this.#deliver(() => {
          onPart?.(parts[0]);
          resolve(onPart ? undefined : parts[0]);
          // Answers to later requests come after the end of a long one.
        }, this.#last());
      }
      this.waiting.add(reject);
      return undefined;
    });
  }

  answer(name, [chat, ...values]) {
    const { model, listener } = this;
    switch (name) {
      case 'SEND_CHAT_MSG': {
        const { id, created } = model.create(chat, ME, values[0], listener, values[1]);
        return [{ id, created }];
      }
      case 'REQUEST_CHAT_PAGE': {
        const [before, limit] = values;
        return [model.ascending(chat).filter(({ id }) => before === 0 || id < before).slice(-limit)];
      }
      case 'REQUEST_UPDATES': {
        const from = chat;
        return CHATS.map((each) => model.ascending(each)
          .filter(({ updated }) => updated >= from)
          .sort((a, b) => a.updated - b.updated)
          .map((message) => ({ chat: each, message })));
      }
      case 'EDIT_MSG': return [model.patch(chat, values[0], { text: values[1], edited: true }, listener)];
      case 'REACT': return [model.react(chat, values[0], ME, values[1], values[2], listener)];
      default: throw new Error(name);
    }
  }

  own(chat, id, name, values, what) {
    return this.sync.own(chat, id, name, values, what).catch(() => undefined);
  }
}

/** Does something at random, as another user or as this one. */
function step(model, browser, random, sent) {
  const chat = CHATS[random(CHATS.length)];
  const message = model.random(chat, random);
  const emoji = ['👍', '❤️'][random(2)];
  switch (random(14)) {
    case 0: case 1: case 2: return void model.create(chat, OTHER, `o${model.time}`);
    case 3: return void (message && model.patch(chat, message.id, { text: `e${model.time}`, edited: true }));
    case 4: return void (message && random(3) === 0 && model.patch(chat, message.id, { text: '', deleted: true, reactions: [] }));
    case 5: return void (message && model.react(chat, message.id, OTHER, random(2) === 0, emoji));
    case 6: case 7: {
      const text = `m${sent.length}`;
      const localId = String(sent.length).padStart(9, '0');
      sent.push({ chat, text });
      return void browser.sync.enqueue({ localId, chat, text, reply: 0, files: [] });
    }
    case 8: return void browser.connect();
    case 9: return void (random(3) === 0 && browser.disconnect());
    case 10: return void browser.sync.older(chat, random(2) ? 0 : browser.sync.windows.get(chat)?.from ?? 0, 1 + random(10)).catch(() => undefined);
    case 11: return void (message && browser.own(chat, message.id, 'EDIT_MSG', [`x${model.time}`], { patch: { text: `x${model.time}`, edited: true } }));
    case 12: {
      const on = random(2) === 0;
      return void (message && browser.own(chat, message.id, 'REACT', [on, emoji], { user: ME, on, emoji }));
    }
    default: return void (random(6) === 0 && browser.crash());
  }
}

async function settle(browser) {
  for (let round = 0; round < 500; round += 1) {
    await browser.connect();
    await browser.catching;
    for (let turns = 0; turns < 20; turns += 1) await soon();
    await new Promise((resolve) => { setTimeout(resolve, 2); });
    if (browser.isConnected && browser.sync.outgoing.length === 0) return;
  }
  assert.fail('it never came to rest: ' + JSON.stringify({c: browser.isConnected, o: browser.sync.outgoing.map(({chat, localId, state, reason}) => ({chat, localId, state, reason}))}));
}

async function run(seed) {
  const random = generator(seed);
  const model = new Model();
  const db = await new Database(`test-${seed}`, () => undefined).open();
  const browser = new Browser(model, random, db);
  await browser.loaded;
  const sent = [];
  for (let count = 0; count < 250; count += 1) {
    step(model, browser, random, sent);
    if (random(3) === 0) await soon();
  }
  await settle(browser);
  // Once more without trouble: what the last connection broke off is caught up with.
  browser.disconnect();
  browser.random = (n) => (n >= 20 ? 1 : 0);
  await settle(browser);
  await browser.sync.change([]);
  for (const chat of CHATS) {
    const window = browser.sync.windows.get(chat);
    const truth = model.ascending(chat);
    if (window) {
      const stored = await db.newer(chat, window.from - 1, 10_000);
      assert.deepEqual(stored, truth.filter(({ id }) => id >= window.from), `seed ${seed}, chat ${chat}`);
    }
    const mine = truth.filter(({ sender }) => sender === ME).map(({ id }) => id);
    const texts = [...model.nonces.entries()].filter(([key]) => key.startsWith(`${chat} ${ME} `)).map(([, { id }]) => id);
    assert.deepEqual(texts, mine, `seed ${seed}: each message under its nonce`);
    const order = [...model.nonces.values()].filter((message) => mine.includes(message.id)).map(({ text }) => text);
    assert.deepEqual(order, sent.filter((each) => each.chat === chat).map(({ text }) => text), `seed ${seed}: in order, once`);
  }
  const from = browser.sync.windows.get(CHATS[0])?.from ?? Infinity;
  for (const shown of browser.timeline.filter(({ id }) => id >= from)) {
    assert.deepEqual(shown, model.messages.get(CHATS[0]).get(shown.id), `seed ${seed}: what is shown`);
  }
  const stored = await db.all('outbox');
  assert.deepEqual(stored, []);
}

test('whatever breaks, the copy is exact and every message is sent once, in order', async () => {
  for (let seed = 1; seed <= 40; seed += 1) await run(seed);
});

test('the cursor and what it covers are one write', async () => {
  const db = await new Database('test-cursor', () => undefined).open();
  const writes = [];
  const write = db.write.bind(db);
  db.write = (changes) => {
    writes.push(changes);
    return write(changes);
  };
  const model = new Model();
  const browser = new Browser(model, () => 1, db);
  await browser.connect();
  await browser.catching;
  writes.length = 0;
  model.create(CHATS[0], OTHER, 'one');
  await browser.wire;
  await browser.sync.change([]);
  const [changes] = writes;
  assert.deepEqual(changes.map(([store, key]) => [store, key]), [['messages', [CHATS[0], 1]], ['meta', 'cursor']]);
});

test('what was stored stays when the first message comes while the browser is away', async () => {
  const db = await new Database('test-first', () => undefined).open();
  const model = new Model();
  model.time = 1.8e15;
  const browser = new Browser(model, () => 1, db);
  await browser.connect();
  await browser.catching;
  assert.equal(browser.sync.cursor, 0);
  await browser.sync.older(CHATS[0], 0, 10);
  await browser.sync.enqueue({ localId: '1', chat: CHATS[0], text: 'first', reply: 0, files: [] });
  while (browser.sync.outgoing.length > 0) await soon();
  browser.disconnect();
  model.create(CHATS[0], OTHER, 'second');
  await browser.connect();
  await browser.catching;
  const texts = (await db.newer(CHATS[0], browser.sync.windows.get(CHATS[0]).from - 1, 10)).map(({ text }) => text);
  assert.deepEqual(texts, ['first', 'second']);
});

test('an older version of a message never replaces a newer one', () => {
  const old = { id: 1, updated: 5, text: 'new', reactions: [] };
  assert.equal(applyChange(old, whole(1, { id: 1, updated: 4, text: 'old' })), old);
  assert.equal(applyChange(old, { chat: 1, id: 1, updated: 5, patch: { text: 'x' } }), old);
  assert.equal(applyChange(undefined, { chat: 1, id: 1, updated: 9, user: 2, on: true, emoji: '👍' }), undefined);
});

test('reactions are counted, those who gave them first are named', () => {
  let message = { id: 1, updated: 0, reactions: [] };
  for (let user = 1; user <= 25; user += 1) {
    message = applyChange(message, { chat: 1, id: 1, updated: user, user, on: true, emoji: '👍' });
  }
  assert.deepEqual([message.reactions[0].count, message.reactions[0].shown.length], [25, 20]);
  for (let user = 25; user >= 1; user -= 1) {
    message = applyChange(message, { chat: 1, id: 1, updated: 100 - user, user, on: false, emoji: '👍' });
  }
  assert.deepEqual(message.reactions, []);
});

test('a chat keeps its newest messages, and says where they begin', async () => {
  const db = await new Database('test-prune', () => undefined).open();
  const sync = new Sync(db, 1, {
    request: async () => [], onChanged: () => undefined, onOutgoing: () => undefined, onReset: () => undefined,
  });
  const message = (id) => ({ id, sender: 2, created: id, updated: id, text: '', reactions: [], files: [] });
  sync.windows.set(1, { from: 1, atStart: true });
  sync.windows.set(2, { from: 1, atStart: true });
  for (const [chat, count] of [[1, 1200], [2, 1000]]) {
    await db.write(Array.from({ length: count }, (_, index) => ['messages', [chat, index + 1], message(index + 1)]));
  }
  await sync.prune();
  assert.deepEqual(sync.windows.get(1), { from: 201, atStart: false });
  assert.deepEqual(sync.windows.get(2), { from: 1, atStart: true });
  assert.equal((await db.newer(1, 0, 5000)).length, 1000);
  assert.equal((await db.newer(2, 0, 5000)).length, 1000);
});
