/**
 * A made-up store for tests and screenshots of the interface: people, chats and messages as they
 * are in a family, a club and a small company. `scene` is one of: login, register, reset, welcome,
 * first, none, full, hostile, large; `offline` and `slow` change the connection.
 */
import { batch, signal } from '../../src/view.js';

const MINUTE = 60_000_000;
const DAY = 24 * 60 * MINUTE;
const NOW = Date.now() * 1000;

const PEOPLE = [
  'anna', 'Мария', 'boris', 'Дмитрий_К', 'Wolfeschlegelsteinhausenberger', 'Leïla', 'tom',
  'Екатерина-Великолепная', 'jürgen', 'Олег', 'sofia.r', '小林', 'Наталья', 'max', 'Света', 'ivan77',
];

/** @type {import('../../src/types.js').User[]} */
const users = PEOPLE.map((name, index) => ({
  id: index + 1, name, online: index % 3 === 1, operator: index === 0, bot: false,
  disabled: index === 13,
}));

let nextId = 1_000_000;
let localCount = 0;

/**
 * @param {number} chat
 * @param {number} sender
 * @param {number} created
 * @param {string} text
 * @param {Partial<import('../../src/types.js').Message>} [more]
 * @returns {import('../../src/types.js').Message}
 */
function message(chat, sender, created, text, more = {}) {
  return {
    id: (nextId += 1), chat, sender, senderName: users[sender - 1]?.name ?? '', created,
    updated: created, edited: false, deleted: false, text, files: [], reactions: [],
    state: 'stored', mentionsMe: false, ...more,
  };
}

const photo = (id, width, height, name) =>
  ({ id, size: 384_000 + id * 7919, width, height, type: 'image/jpeg', name });

/** @param {number} chat */
function familyMessages(chat) {
  const at = (minutes) => NOW - minutes * MINUTE;
  const list = [
    message(chat, 2, at(1600), 'Всем привет! Кто приедет на дачу в субботу? 🌻'),
    message(chat, 3, at(1590), "I'm in! Can bring the grill and some corn."),
    message(chat, 3, at(1589), 'Also: does anyone have a spare folding chair?'),
    message(chat, 1, at(1580), 'Me too. Train at 9:40, arriving about eleven.'),
    message(chat, 8, at(1500), 'Мы с детьми приедем на машине, есть два места. Заберём по дороге кого угодно, только напишите до пятницы, пожалуйста.'),
  ];
  list.push(message(chat, 1, at(1490), 'Thank you! I will take one of the seats then.', {
    reply: { id: list[4].id, sender: 8, senderName: users[7].name, text: list[4].text, deleted: false },
    reactions: [{ emoji: '👍', count: 3, mine: false, users: [2, 3, 8] },
      { emoji: '🎉', count: 1, mine: true, users: [1] }],
  }));
  list.push(
    message(chat, 2, at(300), '', { files: [photo(11, 1600, 1067, 'dacha-morning.jpg')],
      reactions: [{ emoji: '❤️', count: 5, mine: true, users: [1, 3, 8, 4, 5] }] }),
    message(chat, 2, at(299), 'Сегодня утром. Яблоки почти готовы!'),
    message(chat, 4, at(240), 'Список покупок: *угли*, кукуруза, лимоны, `2 кг` яблок и хлеб. Рецепт здесь: https://example.org/recipes/corn-on-the-grill'),
    message(chat, 4, at(239), '', { files: [{ id: 21, size: 248_530, width: 0, height: 0, type: 'application/pdf', name: 'Список покупок на выходные.pdf' }] }),
    message(chat, 1, at(230), 'Perfect, I have charcoal left from last time.', { edited: true }),
    message(chat, 3, at(90), 'message', { deleted: true, text: '' }),
    message(chat, 3, at(88), 'Which bus goes there from the station?'),
    message(chat, 8, at(42), '@anna ты едешь с нами? 🚗', { mentionsMe: true }),
    message(chat, 1, at(40), 'Yes!!'),
    message(chat, 1, at(39), '🎉🎉'),
    message(chat, 2, at(6), 'Отлично. Тогда встречаемся в десять у метро, выход номер 2. Не забудьте куртки: вечером обещают плюс девять.'),
    message(chat, 3, at(3), 'Bus 412, every 20 minutes. See you all on Saturday 👋',
      { reactions: [{ emoji: '👍', count: 2, mine: false, users: [2, 8] }] }),
  );
  return list;
}

const LINES = [
  'Good morning everyone', 'The new build is on staging, please have a look before noon.',
  'Да, я проверил: всё работает. Осталось только обновить документацию.', 'ok',
  'Could somebody review my branch? It is mostly tests.', 'Спасибо!', 'I will be late, train again…',
  'Here is how I would do it:\n```\nfor chat in chats:\n    send(chat, text)\n```', '😂',
  'Давайте обсудим это завтра на встрече, мне нужно ещё подумать о том, что будет, если соединение оборвётся посередине.',
  'See https://example.org/a/very/long/address/that/does/not/end?and=has&many=parameters#anchor',
  'Reminder: *lunch* at _one_.',
];

/**
 * @param {number} chat
 * @param {number} count
 * @param {number} people
 */
function chatter(chat, count, people) {
  const list = [];
  for (let n = 0; n < count; n += 1) {
    const sender = people === 2 ? (Math.floor(n / 2) % 2 ? 1 : 2) : (Math.floor((n * 7) / 3) % people) + 1;
    list.push(message(chat, sender, NOW - (count - n) * 7 * MINUTE - ((count - n) % 5) * MINUTE,
      LINES[(n * 5 + chat) % LINES.length]));
  }
  return list;
}

const HOSTILE = [
  '\u202Egnp.exe.evil', '<img src=x onerror=alert(1)>', 'W'.repeat(400),
  '"><script>alert(1)</script>', 'a\u0300\u0301\u0302\u0303\u0304\u0305'.repeat(30),
  'שלום עולם this is mixed مرحبا', 'javascript:alert(1) http://exa\u202Emple.org/', '﷽'.repeat(20),
];

/**
 * @param {number} id
 * @param {Partial<import('../../src/types.js').Chat>} more
 * @returns {import('../../src/types.js').Chat}
 */
function chat(id, more) {
  return {
    id, kind: 'group', title: `chat ${id}`, name: `chat-${id}`, topic: '', isMember: true,
    isAdmin: false, isClosed: false, hasPassword: false, members: 2, lastTime: 0,
    lastMessage: null, seen: NOW, unread: 0, notify: 0, draft: '', peer: null, typing: [], ...more,
  };
}

const TITLES = [
  'Book club', 'Соседи, дом 14', 'Weekend hikes 🥾', 'Операция «Урожай»', 'release-planning',
  'Ремонт и всё такое', 'Photo of the day', 'Шахматы по четвергам',
  'A very long title of a chat that somebody gave it because there was no limit in sight',
  'Школа № 7: родители 3 «Б»', 'ops-alerts', 'Board games', 'Чат о погоде', 'music',
];

/** @param {URLSearchParams} params */
function manyChats(params) {
  /** @type {Map<number, import('../../src/types.js').Message[]>} */
  const messages = new Map();
  const chats = [];
  const add = (one, list) => {
    const last = list.at(-1);
    one.lastTime = last?.created ?? 0;
    one.lastMessage = last ? {
      time: last.created, text: last.text, sender: last.sender, senderName: last.senderName,
      deleted: last.deleted, files: last.files.map((file) => file.name), state: last.state,
    } : null;
    messages.set(one.id, list);
    chats.push(one);
  };
  const family = familyMessages(1);
  add(chat(1, { title: 'Семья & friends 🏡', name: 'family', topic: 'Семья & friends 🏡', members: 9,
    isAdmin: true, unread: 2, seen: family.at(-3).created, typing: params.has('typing') ? ['Мария'] : [] }), family);
  add(chat(2, { kind: 'direct', title: 'Мария', name: '', peer: { id: 2, online: true, seen: NOW - 3 * MINUTE } }),
    chatter(2, 40, 2));
  add(chat(3, { title: 'release-planning', name: 'release-planning', members: 14, unread: 1000,
    seen: NOW - 3 * DAY, draft: '' }), chatter(3, 300, 9));
  add(chat(4, { kind: 'direct', title: PEOPLE[4], name: '', peer: { id: 5, online: false, seen: NOW - 5 * DAY },
    draft: 'Dear neighbour, about the' }), chatter(4, 3, 2));
  for (let n = 5; n <= 100; n += 1) {
    const isDirect = n % 4 === 0;
    const person = (n % (PEOPLE.length - 1)) + 2;
    const list = n % 11 === 10 ? [] : chatter(n, 1 + (n % 30), isDirect ? 2 : 6);
    for (const one of list) {
      one.created -= n * n * 4 * MINUTE;
      if (isDirect && one.sender !== 1) [one.sender, one.senderName] = [person, users[person - 1]?.name ?? ''];
    }
    add(chat(n, {
      kind: isDirect ? 'direct' : 'group',
      title: isDirect ? users[person - 1]?.name ?? 'anna' : TITLES[n % TITLES.length],
      name: isDirect ? '' : `chat-${n}`, members: 3 + (n % 40),
      unread: n % 6 === 5 ? n % 17 : 0, notify: n % 13 === 9 ? 2 : 0,
      hasPassword: n % 17 === 6, isClosed: false,
      peer: isDirect ? { id: person, online: n % 8 === 0, seen: NOW - n * DAY } : null,
    }), list);
  }
  return { chats: chats.sort((a, b) => b.lastTime - a.lastTime), messages };
}

/** What the interface gets in place of the core. @param {URLSearchParams} params */
export function fakeStore(params) {
  const scene = params.get('scene') ?? 'full';
  const isReady = !['login', 'register', 'reset', 'welcome'].includes(scene);
  let { chats, messages } = manyChats(params);
  if (scene === 'first' || scene === 'none') chats = [];
  if (scene === 'hostile') ({ chats, messages } = hostile());
  if (scene === 'large') messages.set(2, chatter(2, Number(params.get('count') ?? 100_000), 2));
  const server = {
    name: scene === 'hostile' ? HOSTILE[2] : 'chat.example.org', version: 'vestnik 0.9.0', api: { major: 1, minor: 1 },
    maxContent: 16_384, maxFile: 26_214_400, pushKey: '',
    registration: /** @type {const} */ (params.get('registration') ?? 'invite'),
  };
  /** @type {any} */
  const store = {
    phase: signal(isReady ? 'ready' : scene),
    form: signal(scene === 'register' ? { invite: 'kq7m-93xd-pl2w' }
      : scene === 'reset' ? { login: 'anna', code: 'x' } : { why: params.get('why') ?? '', invite: params.get('invite') ?? undefined }),
    connection: signal(params.get('connection') ?? 'online'),
    me: signal(isReady ? { id: 1, name: 'anna', operator: scene !== 'none' } : null),
    server: signal(server),
    chats: signal(chats),
    open: signal(0),
    users: signal(new Map((scene === 'first' ? users.slice(0, 1) : users).map((user) => [user.id, user]))),
    notice: signal(null),
    update: signal(params.has('update')),
  };
  const timelines = new Map();
  store.timeline = (id) => {
    if (!timelines.has(id)) timelines.set(id, makeTimeline(id, messages, store));
    return timelines.get(id);
  };
  store.actions = makeActions(store, messages);
  /** Adds a message as if it came from the server. */
  store.receive = (chatId, sender, text, more) => batch(() => {
    const made = message(chatId, sender, Date.now() * 1000, text, more);
    store.timeline(chatId).push(made);
    if (sender !== 1) store.change(chatId, (one) => ({ unread: one.unread + 1 }));
    store.change(chatId, () => ({ lastTime: made.created, lastMessage: {
      time: made.created, text, sender, senderName: made.senderName, deleted: false,
      files: made.files.map((file) => file.name), state: made.state,
    } }));
    return made;
  });
  store.change = (chatId, change) => {
    store.chats.value = store.chats.peek()
      .map((one) => (one.id === chatId ? { ...one, ...change(one) } : one))
      .sort((a, b) => b.lastTime - a.lastTime);
  };
  return store;
}

function hostile() {
  /** @type {Map<number, import('../../src/types.js').Message[]>} */
  const messages = new Map();
  const chats = HOSTILE.map((text, index) => {
    const id = index + 1;
    users[(index % 5) + 1] = { ...users[(index % 5) + 1], name: text.slice(0, 64) };
    messages.set(id, HOSTILE.flatMap((line, n) => [
      message(id, (n % 5) + 1, NOW - (60 - n) * MINUTE, line, { senderName: HOSTILE[(n + 1) % 8] }),
      message(id, (n % 5) + 1, NOW - (50 - n) * MINUTE, '', { senderName: HOSTILE[(n + 1) % 8],
        files: [{ id: n + 50, size: 1, width: 0, height: 0, type: 'text/html', name: line.slice(0, 200) }],
        reactions: [{ emoji: line.slice(0, 20), count: 65_535, mine: true, users: [1] }],
        reply: { id: 5, sender: 2, senderName: line, text: line, deleted: false } }),
    ]));
    return chat(id, { title: text, name: text, members: 3, typing: [text], isAdmin: true,
      lastTime: NOW - id, unread: 3,
      lastMessage: { time: NOW, text, sender: 2, senderName: text, deleted: false, files: [], state: 'stored' } });
  });
  return { chats, messages };
}

const PAGE = 80;

function makeTimeline(id, messages, store) {
  const all = messages.get(id) ?? [];
  const seen = store.chats.peek().find((one) => one.id === id)?.seen ?? NOW;
  const unread = all.find((one) => one.created > seen && one.sender !== 1);
  const around = unread ? all.indexOf(unread) : all.length;
  let [start, end] = [Math.max(0, around - PAGE), Math.min(all.length, around + PAGE)];
  const items = signal(all.slice(start, end));
  const atStart = signal(start === 0);
  const atEnd = signal(end === all.length);
  const show = () => batch(() => {
    items.value = all.slice(start, end);
    atStart.value = start === 0;
    atEnd.value = end === all.length;
  });
  const wait = () => new Promise((resolve) => setTimeout(resolve, 20));
  return {
    items, atStart, atEnd, loaded: signal(true), ready: signal(true), firstUnread: signal(unread?.id ?? 0),
    async loadOlder() {
      await wait();
      start = Math.max(0, start - PAGE);
      show();
    },
    async loadNewer() {
      await wait();
      end = Math.min(all.length, end + PAGE);
      show();
    },
    async loadAround(messageId) {
      await wait();
      const at = all.findIndex((one) => one.id === messageId);
      if (at < 0) return;
      [start, end] = [Math.max(0, at - PAGE), Math.min(all.length, at + PAGE)];
      show();
    },
    async jumpToNewest() {
      await wait();
      [start, end] = [Math.max(0, all.length - PAGE), all.length];
      show();
    },
    push(made) {
      const wasAtEnd = end === all.length;
      all.push(made);
      if (wasAtEnd) end = all.length;
      show();
    },
    update(key, change) {
      const at = all.findIndex((one) => one.id === key || one.localId === key);
      if (at < 0) return;
      const next = change(all[at]);
      if (next) all[at] = next;
      else {
        all.splice(at, 1);
        end -= 1;
      }
      show();
    },
  };
}

function makeActions(store, messages) {
  const decline = (code, text, number = 0) => {
    throw Object.assign(new Error(text), { code, text, number });
  };
  const wait = (ms = 30) => new Promise((resolve) => setTimeout(resolve, ms));
  const calls = (store.calls = []);
  const chatOf = (id) => store.chats.peek().find((one) => one.id === id);
  const actions = {
    async login(name, password) {
      await wait();
      if (password.length < 8) decline('bad-credentials', 'wrong name or password');
      batch(() => {
        store.me.value = { id: 1, name, operator: true };
        store.phase.value = 'ready';
      });
    },
    async register(name, password) {
      if (name === 'taken') decline('name-taken', 'this name is taken');
      await actions.login(name, password);
    },
    async setPassword() { batch(() => {
      store.form.value = { login: 'anna', why: 'reset-done' };
      store.phase.value = 'login';
    }); },
    async logout() { batch(() => {
      store.open.value = 0;
      store.form.value = {};
      store.phase.value = 'login';
    }); },
    showForm(phase) { store.phase.value = phase; },
    async openChat(id) {
      if (!chatOf(id)) decline('no-such-chat', 'there is no such chat');
      store.open.value = id;
    },
    closeChat() { store.open.value = 0; },
    async send(chatId, text, extra = {}) {
      localCount += 1;
      const localId = `local ${localCount}`;
      const quoted = store.timeline(chatId).items.peek().find((one) => one.id === extra.replyTo);
      store.receive(chatId, 1, text, { id: 0, localId, state: 'sending', files: extra.files ?? [],
        reply: quoted && { id: quoted.id, sender: quoted.sender, senderName: quoted.senderName,
          text: quoted.text, deleted: false } });
      if (store.connection.peek() === 'offline') return;
      setTimeout(() => store.timeline(chatId).update(localId, (one) => (text.includes('refuse')
        ? { ...one, state: 'failed', reason: 'you are banned' }
        : { ...one, id: (nextId += 1), state: 'stored' })), text.includes('slow') ? 5000 : 40);
    },
    async retry(localId) {
      store.timeline(store.open.peek()).update(localId, (one) => ({ ...one, id: (nextId += 1), state: 'stored' }));
    },
    async discard(localId) { store.timeline(store.open.peek()).update(localId, () => null); },
    async edit(chatId, id, text) {
      await wait();
      store.timeline(chatId).update(id, (one) => ({ ...one, text, edited: true }));
    },
    async remove(chatId, id) {
      await wait();
      store.timeline(chatId).update(id, (one) => ({ ...one, text: '', files: [], deleted: true }));
    },
    async react(chatId, id, emoji, on) {
      store.timeline(chatId).update(id, (one) => {
        const rest = one.reactions.filter((it) => it.emoji !== emoji);
        const old = one.reactions.find((it) => it.emoji === emoji);
        const count = (old?.count ?? 0) + (on ? 1 : -1);
        return { ...one, reactions: count > 0
          ? [...rest, { emoji, count, mine: on, users: on ? [1] : [] }] : rest };
      });
    },
    async reactions() {
      return [2, 3, 8].map((user) => ({ user, name: users[user - 1].name, emoji: '👍' }));
    },
    async markSeen(chatId, time) {
      calls.push(['markSeen', chatId, time]);
      store.change(chatId, () => ({ seen: time,
        unread: (messages.get(chatId) ?? []).filter((one) => one.created > time && one.sender !== 1).length }));
    },
    typing() {},
    async setDraft(chatId, text) { store.change(chatId, () => ({ draft: text })); },
    async createChat(name) {
      await wait();
      if (name.includes(' ')) decline('bad-name', 'a name has no spaces');
      const id = 500 + store.chats.peek().length;
      store.chats.value = [chat(id, { title: name, name, members: 1, isAdmin: true, lastTime: NOW }),
        ...store.chats.peek()];
      messages.set(id, []);
      return id;
    },
    async findChats(prefix) {
      await wait();
      return store.chats.peek().filter((one) => one.kind === 'group'
        && one.title.toLowerCase().startsWith(prefix.toLowerCase()))
        .concat(prefix.startsWith('k') ? [chat(900, { title: 'Kitchen', name: 'kitchen', isMember: false, hasPassword: true })] : []);
    },
    async findUsers(prefix) {
      await wait();
      return users.filter((one) => one.name.toLowerCase().startsWith(prefix.toLowerCase()));
    },
    async joinChat(id, password) {
      await wait();
      if (password !== 'kitchen') decline('bad-password', 'wrong password');
    },
    async startChat() { return 2; },
    async leaveChat(id) {
      store.open.value = 0;
      store.chats.value = store.chats.peek().filter((one) => one.id !== id);
    },
    async renameChat(id, name) { store.change(id, () => ({ name })); },
    async setTitle(id, title) { store.change(id, () => ({ title, topic: title })); },
    async setChatPassword(id, password) { store.change(id, () => ({ hasPassword: password !== '' })); },
    async setClosed(id, isClosed) { store.change(id, () => ({ isClosed })); },
    async setNotify(id, notify) { store.change(id, () => ({ notify })); },
    async setAdmin() {}, async setBan() {}, async addMember() {},
    async members(chatId) {
      await wait();
      return users.slice(0, chatOf(chatId)?.members ?? 9).map((user, index) => ({
        id: user.id, name: user.name, online: user.online, admin: index === 0 || index === 3,
        banned: index === 8, seen: NOW - index * 7 * 60 * MINUTE,
      }));
    },
    async search(chatId, query) {
      await wait(60);
      const words = query.toLowerCase().split(/\s+/);
      return [...messages].filter(([id]) => chatId === 0 || id === chatId)
        .flatMap(([id, list]) => list.map((one) => ({ chat: id, message: one })))
        .filter(({ message: one }) => words.every((word) => one.text.toLowerCase().includes(word)))
        .slice(0, 50);
    },
    async createInvite() {
      await wait();
      return { code: 'kq7m93xdpl2w', link: 'https://chat.example.org/#invite=kq7m93xdpl2w' };
    },
    async invites(chatId) {
      return [{ hint: 'kq7m', registers: true, usesLeft: 24, expires: NOW + 6 * DAY, created: NOW,
        creator: 1, creatorName: 'anna', chat: chatId },
      { hint: 'x2vb', registers: false, usesLeft: 3, expires: NOW + 25 * DAY, created: NOW,
        creator: 2, creatorName: 'Мария', chat: chatId }];
    },
    async endInvite() {},
    async useInvite(code) {
      if (code !== 'kq7m') decline('bad-invite', 'not valid');
      return 1;
    },
    async resetPassword() {
      return { code: 'r', link: 'https://chat.example.org/#reset=boris:9fk2-xq81', expires: NOW + DAY };
    },
    async setUserDisabled() {},
    async sessions() {
      return [{ id: 1, current: true, attached: true, created: NOW - 9 * DAY, used: NOW, address: '192.0.2.7' },
        { id: 2, current: false, attached: true, created: NOW - 40 * DAY, used: NOW, address: '2001:db8::4f:1' },
        { id: 3, current: false, attached: false, created: NOW - 90 * DAY, used: NOW - 12 * DAY, address: '198.51.100.23' }];
    },
    async endSession() {},
    async changePassword(old) { if (old.length < 8) decline('bad-credentials', 'wrong password'); },
    async subscribePush() {},
    async upload(chatId, blob, info, onProgress, abort) {
      for (let part = 1; part <= 10; part += 1) {
        if (abort?.aborted) throw new Error('aborted');
        await wait(store.uploadMs ?? 20);
        onProgress?.((blob.size * part) / 10);
      }
      const id = (nextId += 1);
      blobs.set(id, blob);
      return { id, size: blob.size, width: info.width, height: info.height, type: info.type, name: info.name };
    },
    async prepare(file, name) {
      const bitmap = await createImageBitmap(file);
      return { blob: file, name, type: file.type, width: bitmap.width, height: bitmap.height };
    },
    async fileUrl(file) {
      if (blobs.has(file.id)) return URL.createObjectURL(blobs.get(file.id));
      return URL.createObjectURL(await paint(file.width, file.height, file.id));
    },
    async download(file) { calls.push(['download', file.name]); },
    async reload() { calls.push(['reload']); },
    async online() { await wait(); },
    reconnect() { calls.push(['reconnect']); },
  };
  actions.deleteChat = actions.leaveChat;
  return actions;
}

const blobs = new Map();

/** Paints a landscape, so that there is a photo. */
async function paint(width, height, seed) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext('2d');
  const sky = context.createLinearGradient(0, 0, 0, height);
  const hue = (seed * 47) % 360;
  sky.addColorStop(0, `hsl(${210 + (hue % 30)} 70% 62%)`);
  sky.addColorStop(0.6, 'hsl(32 90% 78%)');
  sky.addColorStop(1, 'hsl(40 80% 88%)');
  context.fillStyle = sky;
  context.fillRect(0, 0, width, height);
  context.fillStyle = 'hsl(45 100% 92%)';
  context.beginPath();
  context.arc(width * 0.72, height * 0.42, height * 0.07, 0, 7);
  context.fill();
  for (let layer = 0; layer < 5; layer += 1) {
    context.fillStyle = `hsl(${140 + layer * 6} ${24 + layer * 6}% ${58 - layer * 10}%)`;
    context.beginPath();
    context.moveTo(0, height);
    for (let x = 0; x <= width; x += 8) {
      const wave = Math.sin((x / width) * (3 + layer) * 2 + seed + layer * 2)
        + 0.4 * Math.sin((x / width) * 17 + layer * seed);
      context.lineTo(x, height * (0.5 + layer * 0.1) + wave * height * 0.05);
    }
    context.lineTo(width, height);
    context.fill();
  }
  return canvas.convertToBlob({ type: 'image/jpeg', quality: 0.9 });
}
