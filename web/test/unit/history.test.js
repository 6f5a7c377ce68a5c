import assert from 'node:assert/strict';
import test from 'node:test';

import { History, mentions } from '../../src/history.js';
import { whole } from '../../src/sync.js';

const CHAT = 5;
const ME = 1;

const message = (id, more = {}) => ({
  id, sender: 2, created: id * 10, updated: id * 10, edited: false, deleted: false, text: `m${id}`,
  reply: 0, files: [], reactions: [], ...more,
});

/** A history over messages 1 to `count`, whose pages come when the test says so. */
function make(count, { seen = Infinity, unread = 0, isHidden = false } = {}) {
  const all = Array.from({ length: count }, (_, index) => message(index + 1));
  const world = {
    all,
    names: new Map([[2, 'boris']]),
    held: null,
    waiting: [],
    asked: 0,
    isHidden,
    chat: { id: CHAT, seen, unread },
  };
  world.history = new History(CHAT, {
    call: async (method, [, id, limit]) => {
      const answer = answerOf(method, id, limit);
      if (world.held) await world.held;
      return answer;
    },
    me: () => ({ id: ME, name: 'anna' }),
    name: (user) => world.names.get(user) ?? '',
    chat: () => world.chat,
    isHidden: () => world.isHidden,
  });
  function answerOf(method, id, limit) {
    if (method === 'waiting') return world.waiting;
    if (method === 'reactions') {
      world.asked += 1;
      return [{ user: 7, emoji: '👍' }, { user: ME, emoji: '👍' }];
    }
    if (method === 'message') return world.all.find((each) => each.id === id);
    if (method === 'older') {
      const messages = world.all.filter((each) => id === 0 || each.id < id).slice(-limit);
      return { messages, atStart: messages.length < limit };
    }
    const messages = world.all.filter((each) => each.id > id).slice(0, limit);
    return { messages, atEnd: messages.length < limit };
  }
  return world;
}

const ids = (history) => history.items.value.map(({ id }) => id);
const range = (from, to) => Array.from({ length: to - from + 1 }, (_, index) => from + index);

test('it opens at the newest, and loads older ones to the start', async () => {
  const { history } = make(150);
  await history.open();
  assert.deepEqual(ids(history), range(91, 150));
  await history.loadOlder();
  await history.loadOlder();
  assert.deepEqual(ids(history), range(1, 150));
  assert.ok(history.atStart.value);
  assert.equal(history.firstUnread.value, 0);
});

test('it opens at the first unread message, however far back that is', async () => {
  const { history } = make(1000, { seen: 4000, unread: 600 });
  await history.open();
  assert.equal(history.firstUnread.value, 401);
  assert.ok(ids(history).includes(400));
});

test('own and deleted messages are not the first unread', async () => {
  const world = make(20, { seen: 100, unread: 8 });
  world.all[10] = message(11, { sender: ME });
  world.all[11] = message(12, { deleted: true, text: '' });
  await world.history.open();
  assert.equal(world.history.firstUnread.value, 13);
});

test('a change that comes while a page is on its way is not lost', async () => {
  const world = make(100);
  await world.history.open();
  let release;
  world.held = new Promise((resolve) => { release = resolve; });
  const loading = world.history.loadOlder();
  world.history.apply([
    { chat: CHAT, id: 10, updated: 5000, user: 3, on: true, emoji: '👍' },
    { chat: CHAT, id: 11, updated: 5001, patch: { text: 'edited', edited: true } },
  ]);
  release();
  await loading;
  const [tenth, eleventh] = [10, 11].map((id) => world.history.items.value.find((each) => each.id === id));
  assert.equal(tenth.reactions[0].count, 1);
  assert.equal(eleventh.text, 'edited');
});

test('a window that was replaced does not take pages of the one before', async () => {
  const world = make(500);
  await world.history.open();
  let release;
  world.held = new Promise((resolve) => { release = resolve; });
  const loading = world.history.loadOlder();
  world.held = null;
  await world.history.loadAround(50);
  const before = ids(world.history);
  release();
  await loading;
  assert.deepEqual(ids(world.history), before);
  assert.ok(!world.history.atEnd.value);
});

test('away from the end new messages wait until the window gets there', async () => {
  const world = make(500);
  await world.history.open();
  await world.history.loadAround(50);
  world.all.push(message(501));
  world.history.apply([whole(CHAT, message(501))]);
  assert.equal(ids(world.history).at(-1), 90);
  while (!world.history.atEnd.value) await world.history.loadNewer();
  assert.deepEqual(ids(world.history), range(ids(world.history)[0], 501));
});

test('a sent message keeps its place and its key when it is stored', async () => {
  const { history } = make(3);
  await history.open();
  const entry = { localId: 'x', chat: CHAT, text: 'mine', reply: 0, files: [], time: 1, state: 'sending' };
  history.setOutgoing([entry]);
  assert.deepEqual(history.items.value.at(-1), {
    ...history.items.value.at(-1), id: 0, localId: 'x', text: 'mine', state: 'sending', senderName: 'anna',
  });
  history.setOutgoing([], { localId: 'x', message: message(4, { sender: ME, text: 'mine' }) });
  assert.deepEqual(ids(history), [1, 2, 3, 4]);
  assert.equal(history.items.value.at(-1).localId, 'x');
});

test('items that did not change stay the same objects', async () => {
  const { history } = make(10);
  await history.open();
  const before = history.items.value;
  history.apply([{ chat: CHAT, id: 5, updated: 9999, patch: { text: 'new' } }]);
  const after = history.items.value;
  assert.deepEqual(before.map((item, index) => item === after[index]), range(1, 10).map((id) => id !== 5));
});

test('names and quoted messages come when they are known', async () => {
  const world = make(100);
  world.names.clear();
  world.all[99] = message(100, { reply: 3 });
  await world.history.open();
  await new Promise((resolve) => { setTimeout(resolve, 1); });
  assert.equal(world.history.items.value.at(-1).reply.text, 'm3');
  assert.equal(world.history.items.value[0].senderName, '');
  world.names.set(2, 'boris');
  world.history.renamed();
  assert.equal(world.history.items.value[0].senderName, 'boris');
  assert.equal(world.history.items.value.at(-1).reply.senderName, 'boris');
});

test('a quote follows what it quotes', async () => {
  const world = make(10);
  world.all[9] = message(10, { reply: 9 });
  await world.history.open();
  world.history.apply([{ chat: CHAT, id: 9, updated: 9999, patch: { text: '', deleted: true } }]);
  assert.deepEqual([world.history.items.value.at(-1).reply.deleted, world.history.items.value.at(-1).reply.text], [true, '']);
});

test('what comes while nobody looks is below the line', async () => {
  const world = make(10, { seen: 100, isHidden: true });
  await world.history.open();
  world.history.apply([whole(CHAT, message(11, { sender: ME }))]);
  assert.equal(world.history.firstUnread.value, 0);
  world.history.apply([whole(CHAT, message(12))]);
  world.history.apply([whole(CHAT, message(13))]);
  assert.equal(world.history.firstUnread.value, 12);
});

test('a name is mentioned where neither letter nor digit touches it', () => {
  for (const text of ['@anna', 'hi @Anna!', '(@ANNA)', '@all please', 'x, @anna-maria']) assert.ok(mentions(text, 'Anna'), text);
  for (const text of ['anna', 'x@anna', '@annabel', '@anna2', 'ю@anna', '@annaю', '@ anna']) assert.ok(!mentions(text, 'Anna'), text);
  assert.ok(mentions('да, @Борис.', 'борис'));
  assert.ok(mentions('@a.b', 'a.b'));
  assert.ok(!mentions('@axb', 'a.b'));
  assert.ok(mentions('hi @anna-maria!', 'Anna-Maria'));
  assert.ok(!mentions('@anna', 'Anna-Maria'));
});

test('a reaction of mine that is not among those that are named is asked for, once', async () => {
  const world = make(3);
  const shown = Array.from({ length: 20 }, (_, index) => 100 + index);
  world.all[1] = message(2, { reactions: [{ emoji: '👍', count: 22, shown }, { emoji: '🎉', count: 1, shown: [9] }] });
  const { history } = world;
  const mine = () => history.items.value[1].reactions.map((each) => each.mine);
  await history.open();
  await new Promise((resolve) => { setTimeout(resolve); });
  assert.deepEqual(mine(), [true, false]);
  history.apply([{ chat: CHAT, id: 2, updated: 1000, user: ME, on: false, emoji: '👍' }]);
  assert.deepEqual(mine(), [false, false]);
  history.apply([{ chat: CHAT, id: 2, updated: 1001, user: ME, on: true, emoji: '👍' }]);
  assert.deepEqual(mine(), [true, false]);
  assert.equal(world.asked, 1);
});
