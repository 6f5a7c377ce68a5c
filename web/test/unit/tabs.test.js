import assert from 'node:assert/strict';
import test from 'node:test';

import { Tabs } from '../../src/tabs.js';

/** Locks as a browser has them: one holds, the others wait; stealing ends the holder's promise. */
class Locks {
  holder = null;
  waiting = [];

  request(name, { steal = false }, job) {
    return new Promise((resolve, reject) => {
      const entry = { job, resolve, reject };
      if (steal && this.holder) {
        this.holder.reject(new Error('stolen'));
        this.holder = null;
        this.waiting.unshift(entry);
      } else this.waiting.push(entry);
      this.#next();
    });
  }

  #next() {
    if (this.holder || this.waiting.length === 0) return;
    const entry = this.waiting.shift();
    this.holder = entry;
    queueMicrotask(async () => {
      const value = await entry.job();
      if (this.holder !== entry) return;
      this.holder = null;
      entry.resolve(value);
      this.#next();
    });
  }
}

/** Channels that reach each other, but not themselves; values are copied. */
class Channels {
  all = new Set();

  make() {
    const channel = {
      isFrozen: false,
      onmessage: null,
      postMessage: (data) => {
        const copy = structuredClone(data);
        for (const other of this.all) {
          if (other !== channel && !other.isFrozen) queueMicrotask(() => other.onmessage?.({ data: copy }));
        }
      },
    };
    this.all.add(channel);
    return channel;
  }
}

function browser() {
  const locks = new Locks();
  const channels = new Channels();
  const log = [];
  return {
    log,
    tab(name, api = {}) {
      const channel = channels.make();
      const events = [];
      const tab = new Tabs({
        name: 'test',
        locks,
        channel,
        onEvent: (event) => events.push(event),
        onLeader: () => log.push(`${name} sees a leader`),
        makeService: (emit) => ({
          start: async () => {
            log.push(`${name} leads`);
            emit({ from: name });
          },
          stop: () => log.push(`${name} stops`),
          call: async (method, args, options) => {
            if (method === 'who') return name;
            if (method === 'fail') throw { code: 'forbidden', text: 'no', number: 3 };
            return api[method](options, ...args);
          },
        }),
      });
      tab.start();
      return { tab, channel, events };
    },
  };
}

const soon = () => new Promise((resolve) => { setTimeout(resolve, 5); });

test('one tab leads; the others call it, and get its events', async () => {
  const all = browser();
  const a = all.tab('a');
  await soon();
  const b = all.tab('b');
  await soon();
  assert.equal(await a.tab.call('who'), 'a');
  assert.equal(await b.tab.call('who'), 'a');
  assert.deepEqual(all.log.filter((line) => line.endsWith('leads')), ['a leads']);
  assert.deepEqual(a.events, [{ from: 'a' }]);
});

test('a failure arrives whole', async () => {
  const all = browser();
  all.tab('a');
  const b = all.tab('b');
  await assert.rejects(b.tab.call('fail'), { code: 'forbidden', text: 'no', number: 3 });
});

test('when the leader goes another takes over, and answers what waits', async () => {
  const all = browser();
  const a = all.tab('a', { slow: () => new Promise(() => undefined) });
  await soon();
  const b = all.tab('b', { slow: async () => 'from b' });
  const c = all.tab('c');
  await soon();
  const answer = c.tab.call('slow');
  await soon();
  a.tab.stop();
  assert.equal(await answer, 'from b');
  assert.equal(await c.tab.call('who'), 'b');
  assert.ok(b.tab.isLeader);
  assert.ok(!a.tab.isLeader);
});

test('a leader that does not answer loses the lead', async () => {
  const all = browser();
  const a = all.tab('a');
  await soon();
  const b = all.tab('b');
  await soon();
  a.channel.isFrozen = true;
  assert.equal(await b.tab.call('who'), 'b');
  assert.ok(!a.tab.isLeader);
  assert.ok(all.log.includes('a stops'));
});

test('a leader that answers keeps the lead, however long a call takes', async () => {
  const all = browser();
  const a = all.tab('a', { slow: () => new Promise((resolve) => { setTimeout(() => resolve('done'), 4_000); }) });
  await soon();
  const b = all.tab('b');
  assert.equal(await b.tab.call('slow'), 'done');
  assert.ok(a.tab.isLeader);
});

test('progress and cancelling reach over tabs', async () => {
  const all = browser();
  let isAborted = false;
  all.tab('a', {
    upload: ({ onProgress, signal }) => new Promise(() => {
      onProgress(7);
      signal.addEventListener('abort', () => { isAborted = true; });
    }),
  });
  await soon();
  const b = all.tab('b');
  const controller = new AbortController();
  const seen = [];
  const call = b.tab.call('upload', [], { onProgress: (done) => seen.push(done), signal: controller.signal });
  await soon();
  controller.abort();
  await assert.rejects(call, { code: 'aborted' });
  await soon();
  assert.deepEqual([seen, isAborted], [[7], true]);
});

test('without locks every tab leads for itself', async () => {
  const tab = new Tabs({
    name: 'test', locks: undefined, onEvent: () => undefined, onLeader: () => undefined,
    makeService: () => ({ start: async () => undefined, stop: () => undefined, call: async () => 'own' }),
  });
  await tab.start();
  assert.equal(await tab.call('who'), 'own');
});
