/**
 * The part that exists once for all tabs: connection, session, chats, people.
 *
 * It lives in the tab that leads (tabs.js). Tabs call the methods of `api` and get events: `state`
 * (parts of the state that changed), `users`, `changes` (of messages), `outgoing`, `reset` and
 * `notice`. Nothing here touches the page.
 */

import { ALL, Database } from './db.js';
import { Link, OFFLINE } from './link.js';
import { Sync, whole } from './sync.js';

/** @typedef {import('./types.js').Chat} Chat */
/** @typedef {import('./types.js').Failure} Failure */
/** @typedef {import('./types.js').User} User */
/** @typedef {import('./wire.js').WireChat} WireChat */
/** @typedef {import('./wire.js').WireMessage} WireMessage */
/** @typedef {{id: number, hash: string, user: {id: number, name: string, operator: boolean}}} Session */
/** @typedef {{id: number, time: number, text: string, sender: number, deleted: boolean, files: string[]}} Last */
/**
 * @typedef {object} Entry
 * @property {WireChat} info
 * @property {Last|null} last
 * @property {{id: number, online: boolean, seen: number}|null} peer
 * @property {number} added when it came to this list, by this browser's clock
 * @property {Map<number, ReturnType<typeof setTimeout>>} typing
 * @property {string} draft
 */
/** @typedef {{onProgress?: (done: number) => void, signal?: AbortSignal}} CallOptions */

const TYPING_MS = 6_000;
const TYPING_EVERY_MS = 3_000;
/** Requests wait this long for a connection that is being made. */
const CONNECT_WAIT_MS = 6_000;
/** So many of the newest chats are read ahead with a page; of the others the last message. */
const CHATS_READ_AHEAD = 20;
const PAGE = 30;
const PREVIEW_CHARS = 200;
/** Visible tabs say so more often than this. */
const VISIBLE_MS = 45_000;
/** A session that is taken over again so soon is in use somewhere else. */
const TAKEN_OVER_MS = 10_000;
const MARK_EVERY_MS = 500;
const UNREAD_MAX = 1000;

/** @param {unknown} error */
const isOffline = (error) => /** @type {Failure} */ (error)?.code === 'offline';
/** @param {number} ms */
const pause = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

export class Engine {
  /** @type {Database | undefined} the session */
  #slotDb;
  /** @type {Database | undefined} what the user has */
  #db;
  /** @type {Sync | undefined} */
  #sync;
  /** @type {Session | null} */
  #session = null;
  /** @type {Map<number, Entry>} */
  #chats = new Map();
  /** @type {Map<number, User>} */
  #users = new Map();
  /** @type {Set<number>} being asked for */
  #asked = new Set();
  /** @type {Map<number, ReturnType<typeof setTimeout>>} markers that wait to be sent */
  #marks = new Map();
  /** @type {(() => void)[]} wait for the session */
  #whenOnline = [];
  /** @type {(() => void)[]} wait for a greeted connection, or for the end of the attempt */
  #whenGreeted = [];
  #isAuthorized = false;
  #typedAt = 0;
  #visibleAt = Date.now();
  #takenOverAt = 0;
  #isEmitting = false;
  /** @type {Record<string, unknown>} */
  #changed = {};

  /** What all tabs show. */
  state = {
    auth: /** @type {'starting'|'out'|'in'} */ ('starting'),
    why: '',
    login: '',
    connection: /** @type {import('./types.js').ConnectionState} */ ('connecting'),
    me: /** @type {import('./types.js').Me|null} */ (null),
    server: /** @type {import('./types.js').Server|null} */ (null),
    chats: /** @type {Chat[]} */ ([]),
  };

  /**
   * @param {{slot: string, url: string, emit: (event: any) => void}} options slot: names the
   *   databases; tabs that share one share a session
   */
  constructor({ slot, url, emit }) {
    this.slot = slot;
    this.emit = emit;
    this.link = new Link(url, {
      onGreeted: (hello) => this.#onGreeted(hello),
      onLost: (state) => this.#onLost(state),
      onNotification: (name, body) => this.#onNotification(name, body),
      onDeauth: () => this.#onDeauth(),
      // The server closes a connection that nobody logs in on: the next attempt to do so makes one.
      isWanted: () => this.#session !== null || this.state.server === null,
    }, { isVisible: () => Date.now() - this.#visibleAt < VISIBLE_MS });
  }

  async start() {
    this.#slotDb = await this.#openDb(this.slot);
    this.#session = (await this.#slotDb.get('meta', 'session')) ?? null;
    if (this.#session) await this.#openUser(this.#session);
    else this.#set({ auth: 'out' });
    this.link.start();
  }

  stop() {
    this.link.stop();
    this.#sync?.lost();
    this.#db?.close();
    this.#slotDb?.close();
  }

  // --- State ---

  /** @param {Partial<Engine['state']>} patch */
  #set(patch) {
    Object.assign(this.state, patch);
    Object.assign(this.#changed, patch);
    if (this.#isEmitting) return;
    this.#isEmitting = true;
    queueMicrotask(() => {
      this.#isEmitting = false;
      const changed = this.#changed;
      this.#changed = {};
      if ('chats' in changed) changed.chats = this.state.chats = this.#chatList();
      this.emit({ type: 'state', state: changed });
    });
  }

  #chatsChanged() {
    this.#set({ chats: [] });
  }

  #chatList() {
    return [...this.#chats.values()]
      .sort((a, b) => (b.info.lastTime || b.added) - (a.info.lastTime || a.added))
      .map((entry) => this.#view(entry));
  }

  /**
   * @param {Entry} entry
   * @returns {Chat}
   */
  #view({ info, last, peer, typing, draft }) {
    const waiting = this.#sync?.waiting(info.id).at(-1);
    const shown = waiting ? {
      time: waiting.time, text: waiting.text.slice(0, PREVIEW_CHARS), sender: this.#me.id,
      deleted: false, files: waiting.files.map(({ name }) => name), state: waiting.state,
    } : last && { ...last, state: /** @type {const} */ ('stored') };
    return {
      ...viewChat(info),
      lastMessage: shown && { ...shown, senderName: this.#name(shown.sender) },
      peer, draft,
      typing: [...typing.keys()].map((id) => this.#name(id)).filter(Boolean),
    };
  }

  get #me() {
    return this.state.me ?? { id: 0, name: '', operator: false };
  }

  /** @param {number} id */
  #name(id) {
    return id === this.#me.id ? this.#me.name : this.#users.get(id)?.name ?? '';
  }

  // --- Session ---

  /** @param {string} name */
  async #openDb(name) {
    const db = new Database(name, (isEmpty) => {
      this.emit({ type: 'notice', key: 'noticeNoStorage' });
      if (isEmpty && this.#sync) this.#sync.reset(this.#sync.cursor);
    });
    return db.open();
  }

  /** @param {Session} session */
  async #openUser({ user }) {
    this.#db = await this.#openDb(`${this.slot}-${user.id}-${user.name.toLowerCase()}`);
    this.#sync = new Sync(this.#db, user.id, {
      request: (...args) => this.link.request(...args),
      onChanged: (changes) => this.emit({ type: 'changes', changes }),
      onReset: () => this.emit({ type: 'reset' }),
      onOutgoing: (chat, entries, sent) => {
        if (sent) this.#noteMessage(chat, sent.message);
        this.#chatsChanged();
        this.emit({ type: 'outgoing', chat, entries, sent });
      },
    });
    await this.#sync.load();
    const [chats, users, drafts] = await Promise.all([
      this.#db.all('chats'), this.#db.all('users'), this.#db.all('drafts'),
    ]);
    this.#users = new Map(users);
    this.#chats = new Map(chats.map(([id, stored]) => [id, { ...stored, typing: new Map(), draft: '' }]));
    for (const [id, draft] of drafts) {
      const entry = this.#chats.get(id);
      if (entry) entry.draft = draft;
    }
    this.emit({ type: 'users', users: [...this.#users.values()], isAll: true });
    this.#set({ auth: 'in', me: user, why: '', login: '', chats: [] });
  }

  /** @param {import('./link.js').Answer<'HELLO'>} hello */
  async #onGreeted(hello) {
    this.#set({ server: { ...hello, name: location.host } });
    for (const resolve of this.#whenGreeted.splice(0)) resolve();
    if (this.#session) await this.#restore();
    else this.#set({ connection: 'online' });
  }

  async #restore() {
    const session = this.#session;
    while (session && session === this.#session) {
      try {
        const { operator } = await this.link.request('RESTORE_SESSION', [session.id, session.hash]);
        await this.#authorized(operator);
        return;
      } catch (error) {
        const failure = /** @type {Failure} */ (error);
        if (failure.code === 'bad-session') return this.#ended('ended');
        if (failure.code !== 'rate-limited') throw error;
        await pause(1000 * (failure.number || 1));
      }
    }
  }

  /** @param {boolean} operator */
  async #authorized(operator) {
    const sync = /** @type {Sync} */ (this.#sync);
    this.#isAuthorized = true;
    if (operator !== this.#me.operator) this.#set({ me: { ...this.#me, operator } });
    // What waits to be sent goes first: a message that was stored already is known by its nonce
    // before the catch-up shows it.
    sync.ready();
    const infos = await this.link.request('GET_MY_CHATS');
    await this.#mergeChats(infos);
    this.#set({ connection: 'online' });
    for (const resolve of this.#whenOnline.splice(0)) resolve();
    const newest = Math.max(0, ...infos.map(({ lastTime }) => lastTime));
    await this.#upgrade(sync);
    await this.#catchUp(sync, newest);
    this.#readAhead(sync).catch((error) => isOffline(error) || console.warn(error));
  }

  /**
   * Structures of another version of the API lack what this one has.
   * @param {Sync} sync
   */
  async #upgrade(sync) {
    const minor = this.state.server?.api.minor ?? 0;
    const stored = await this.#db?.get('meta', 'minor');
    if (stored === minor) return;
    if (sync.cursor !== undefined) await sync.reset();
    await this.#db?.write([['meta', 'minor', minor]]);
  }

  /**
   * @param {Sync} sync
   * @param {number} newest
   */
  async #catchUp(sync, newest) {
    for (;;) {
      try {
        return await sync.catchUp(newest);
      } catch (error) {
        // A chat ended while it was read: the others are still to come.
        if (isOffline(error) || !this.#isAuthorized) throw error;
        await pause(1000);
      }
    }
  }

  /** @param {'connecting'|'offline'} state */
  #onLost(state) {
    this.#isAuthorized = false;
    this.#sync?.lost();
    for (const resolve of this.#whenGreeted.splice(0)) resolve();
    if (!this.#session && state === 'connecting') return;
    // While attempts fail, what is shown stays: nothing blinks.
    if (this.state.connection !== 'offline') this.#set({ connection: state });
  }

  async #onDeauth() {
    this.#isAuthorized = false;
    this.#sync?.lost();
    if (!this.#session) return;
    const isAgain = Date.now() - this.#takenOverAt < TAKEN_OVER_MS;
    this.#takenOverAt = Date.now();
    if (isAgain) return this.#ended('ended');
    await this.#restore().catch(() => undefined);
  }

  /**
   * The session is no more: what is secret goes, drafts and unsent messages wait for the same user.
   * @param {string} why
   */
  async #ended(why) {
    const login = this.#me.name;
    const db = this.#db;
    this.#clear();
    this.#set({ auth: 'out', why, login, connection: this.link.isOnline ? 'online' : this.state.connection });
    await this.#slotDb?.write([['meta', 'session']]);
    await db?.write([['messages', ALL], ['chats', ALL], ['users', ALL], ['meta', ALL]]);
    db?.close();
  }

  #clear() {
    this.#sync?.lost();
    this.#sync = this.#db = undefined;
    this.#session = null;
    this.#isAuthorized = false;
    this.#chats.clear();
    this.#users.clear();
    this.#asked.clear();
    for (const timer of this.#marks.values()) clearTimeout(timer);
    this.#marks.clear();
    this.emit({ type: 'users', users: [], isAll: true });
    this.#set({ me: null, chats: [] });
  }

  /**
   * @param {{session: number, hash: string, user: number, operator: boolean}} answer
   * @param {string} login
   */
  async #loggedIn({ session, hash, user, operator }, login) {
    this.#takenOverAt = 0;
    // As it is written, not as it was typed.
    const name = await this.link.request('GET_USER', [user]).then((known) => known.name, () => login);
    this.#session = { id: session, hash, user: { id: user, name, operator } };
    await this.#slotDb?.write([['meta', 'session', this.#session]]);
    await this.#openUser(this.#session);
    await this.#authorized(operator);
  }

  /**
   * @template {import('./wire.js').RequestName} N
   * @param {N} name
   * @param {any[]} [values]
   * @returns {Promise<import('./link.js').Answer<N>>}
   */
  #request(name, values) {
    return this.#isAuthorized ? this.link.request(name, values) : Promise.reject(OFFLINE);
  }

  async #greeted() {
    if (this.link.isOnline) return;
    this.link.wake();
    await Promise.race([
      new Promise((resolve) => { this.#whenGreeted.push(() => resolve(undefined)); }),
      pause(CONNECT_WAIT_MS),
    ]);
    if (!this.link.isOnline) throw OFFLINE;
  }

  /** @returns {Promise<void>} settles with the next session that is attached */
  online() {
    if (this.#isAuthorized) return Promise.resolve();
    return new Promise((resolve) => { this.#whenOnline.push(resolve); });
  }

  // --- Chats ---

  /** @param {WireChat[]} infos all of mine */
  async #mergeChats(infos) {
    const mine = new Set(infos.map(({ id }) => id));
    for (const id of [...this.#chats.keys()]) if (!mine.has(id)) this.#dropChat(id);
    for (const info of infos) this.#putChat(info);
  }

  /** @param {WireChat} info */
  #putChat(info) {
    const known = this.#chats.get(info.id);
    const entry = known ?? {
      info, last: null, peer: null, added: Date.now() * 1000, typing: new Map(), draft: '',
    };
    const seen = Math.max(info.seen, known?.info.seen ?? 0);
    // My marker has not reached the server yet.
    if (seen > info.seen) this.#sendMark(info.id);
    const isAllSeen = seen >= info.lastTime;
    entry.info = { ...info, seen, unread: isAllSeen ? 0 : info.unread };
    this.#chats.set(info.id, entry);
    this.#saveChat(entry);
    if (!known) this.#db?.get('drafts', info.id).then((draft) => draft && this.#setDraft(entry, draft));
    return entry;
  }

  /** @param {Entry} entry */
  #saveChat(entry) {
    const { info, last, peer, added } = entry;
    this.#db?.write([['chats', info.id, { info, last, peer, added }]]);
    this.#chatsChanged();
  }

  /** @param {number} id */
  #dropChat(id) {
    if (!this.#chats.delete(id)) return;
    this.#sync?.forget(id);
    this.#db?.write([['chats', id]]);
    this.#chatsChanged();
  }

  /** @param {number} id */
  async #refreshChat(id) {
    const info = await this.#request('GET_CHAT', [id]);
    if (info.isMember) await this.#onChat(info);
    else this.#dropChat(id);
  }

  /**
   * Brings what the list shows of a chat up to a message that came.
   * @param {number} chat
   * @param {WireMessage} message
   */
  #noteMessage(chat, message) {
    const entry = this.#chats.get(chat);
    if (!entry) return;
    const { info, last } = entry;
    const isMine = message.sender === this.#me.id;
    if (message.created > info.lastTime) {
      info.lastTime = message.created;
      if (!isMine && !message.deleted) info.unread = Math.min(info.unread + 1, UNREAD_MAX);
      clearTimeout(entry.typing.get(message.sender));
      entry.typing.delete(message.sender);
    } else if (message.deleted && !isMine && message.created > info.seen) {
      this.#refreshChat(chat).catch(() => undefined);
    }
    if (!last || message.id >= last.id) {
      entry.last = {
        id: message.id, time: message.created, text: message.text.slice(0, PREVIEW_CHARS),
        sender: message.sender, deleted: message.deleted, files: message.files.map(({ name }) => name),
      };
      this.#needUsers([message.sender]);
    }
    this.#saveChat(entry);
  }

  /**
   * Pages of the newest chats, for the list and for a start without a connection; who the others
   * of direct chats are, and whether they are there.
   * @param {Sync} sync
   */
  async #readAhead(sync) {
    const entries = [...this.#chats.values()].sort((a, b) => b.info.lastTime - a.info.lastTime);
    const directs = entries.filter(({ info }) => info.kind === 'direct');
    await Promise.all(directs.map((entry) => this.#readPeer(entry)));
    for (const [index, entry] of entries.entries()) {
      if (sync !== this.#sync || !entry.info.lastTime) continue;
      const isKnown = entry.last && entry.last.time >= entry.info.lastTime;
      if (index >= CHATS_READ_AHEAD ? isKnown : sync.windows.has(entry.info.id)) continue;
      const limit = index < CHATS_READ_AHEAD ? PAGE : 1;
      const { messages } = await sync.older(entry.info.id, 0, limit);
      const last = messages.at(-1);
      if (last) this.#noteMessage(entry.info.id, last);
      this.#needUsers(messages.map(({ sender }) => sender));
    }
  }

  /** @param {Entry} entry */
  async #readPeer(entry) {
    const members = await this.api.members(entry.info.id);
    const peer = members.find(({ id }) => id !== this.#me.id);
    if (peer) entry.peer = { id: peer.id, online: peer.online, seen: peer.seen };
    this.#saveChat(entry);
  }

  /** @param {Partial<User> & {id: number, name: string}} user */
  #putUser(user) {
    const known = this.#users.get(user.id);
    const next = {
      online: false, operator: false, bot: false, disabled: false, ...known, ...user,
    };
    this.#users.set(user.id, next);
    if (known?.name !== user.name) this.#db?.write([['users', user.id, next]]);
    this.emit({ type: 'users', users: [next] });
  }

  /**
   * Asks for the names of people that are not known yet.
   * @param {number[]} ids
   */
  #needUsers(ids) {
    for (const id of new Set(ids)) {
      if (this.#users.has(id) || this.#asked.has(id) || id === this.#me.id) continue;
      this.#asked.add(id);
      this.#request('GET_USER', [id]).then((user) => {
        this.#putUser(user);
        this.#chatsChanged();
      }, () => undefined).finally(() => this.#asked.delete(id));
    }
  }

  /** @param {number} chat */
  #sendMark(chat) {
    if (this.#marks.has(chat)) return;
    this.#marks.set(chat, setTimeout(async () => {
      this.#marks.delete(chat);
      const entry = this.#chats.get(chat);
      if (!entry) return;
      await this.#request('MARK_SEEN', [chat, entry.info.seen]).catch(() => undefined);
      if (entry.info.unread > 0) await this.#refreshChat(chat).catch(() => undefined);
    }, MARK_EVERY_MS));
  }

  /**
   * @param {Entry} entry
   * @param {string} text
   */
  #setDraft(entry, text) {
    entry.draft = text;
    this.#chatsChanged();
  }

  // --- Notifications ---

  /**
   * @param {string} name
   * @param {any} body
   */
  #onNotification(name, body) {
    const sync = this.#sync;
    if (!sync) return;
    const entry = this.#chats.get(body.chat);
    switch (name) {
      case 'MSG_NOTIFY':
        for (const message of body.messages) this.#noteMessage(body.chat, message);
        this.#needUsers(body.messages.map((/** @type {WireMessage} */ { sender }) => sender));
        sync.change(body.messages.map((/** @type {WireMessage} */ message) => whole(body.chat, message)), true);
        break;
      case 'REACTION_NOTIFY':
        this.#needUsers([body.user]);
        sync.change([body], true);
        break;
      case 'CHAT_NOTIFY':
        this.#onChat(body);
        break;
      case 'CHAT_GONE':
        this.#dropChat(body.chat);
        break;
      case 'MEMBER_NOTIFY':
        if (entry) this.#onMember(entry, body);
        break;
      case 'SEEN_NOTIFY':
        if (entry) this.#onSeen(entry, body);
        break;
      case 'TYPING_NOTIFY':
        if (entry) this.#onTyping(entry, body.user);
        break;
      case 'PRESENCE_NOTIFY':
        this.#onPresence(body);
        break;
    }
  }

  /** @param {WireChat} info */
  async #onChat(info) {
    const isNew = !this.#chats.has(info.id);
    const entry = this.#putChat(info);
    if (!isNew) return;
    if (info.kind === 'direct') await this.#readPeer(entry).catch(() => undefined);
    const page = await this.api.older(info.id, 0, PAGE).catch(() => undefined);
    const last = page?.messages.at(-1);
    if (last) this.#noteMessage(info.id, last);
  }

  /**
   * @param {Entry} entry
   * @param {{user: number, event: number, name: string}} member
   */
  #onMember(entry, { user, event, name }) {
    const [JOINED, LEFT, BANNED] = [1, 2, 5];
    if (event === JOINED) entry.info.members += 1;
    if (event === LEFT || event === BANNED) entry.info.members -= 1;
    this.#putUser({ id: user, name });
    this.#saveChat(entry);
  }

  /**
   * @param {Entry} entry
   * @param {{user: number, time: number}} marker
   */
  #onSeen(entry, { user, time }) {
    if (user === this.#me.id) {
      if (time <= entry.info.seen) return;
      entry.info.seen = time;
      if (time >= entry.info.lastTime) entry.info.unread = 0;
      else this.#refreshChat(entry.info.id).catch(() => undefined);
    } else if (entry.peer?.id === user) {
      entry.peer = { ...entry.peer, seen: Math.max(entry.peer.seen, time) };
    } else return;
    this.#saveChat(entry);
  }

  /**
   * @param {Entry} entry
   * @param {number} user
   */
  #onTyping(entry, user) {
    this.#needUsers([user]);
    clearTimeout(entry.typing.get(user));
    entry.typing.set(user, setTimeout(() => {
      entry.typing.delete(user);
      this.#chatsChanged();
    }, TYPING_MS));
    this.#chatsChanged();
  }

  /** @param {{user: number, online: boolean}} presence */
  #onPresence({ user, online }) {
    const known = this.#users.get(user);
    if (known) this.#putUser({ ...known, online });
    for (const entry of this.#chats.values()) {
      if (entry.peer?.id === user) entry.peer = { ...entry.peer, online };
    }
    this.#chatsChanged();
  }

  // --- What tabs may call ---

  api = this.#makeApi();

  /**
   * @param {string} method
   * @param {any[]} args
   * @param {CallOptions} options
   * @returns {Promise<any>}
   */
  async call(method, args, options) {
    if (method === 'upload' || method === 'fetchFile') {
      const files = /** @type {any} */ (await import('./files.js'));
      return files[method](this, options, ...args);
    }
    return /** @type {any} */ (this.api)[method](...args);
  }

  #makeApi() {
    const request = this.#request.bind(this);
    const sync = () => {
      if (!this.#sync) throw OFFLINE;
      return this.#sync;
    };
    /**
     * Asks, then reads the chat anew: the own connection gets no notification.
     * @param {import('./wire.js').RequestName} name
     */
    const changing = (name) => async (/** @type {number} */ chat, /** @type {any[]} */ ...values) => {
      await request(name, [chat, ...values]);
      await this.#refreshChat(chat);
    };
    /** @param {import('./wire.js').RequestName} name */
    const leaving = (name) => async (/** @type {number} */ chat) => {
      await request(name, [chat]);
      this.#dropChat(chat);
    };
    return {
      // The tabs themselves
      snapshot: async () => ({ state: this.state, users: [...this.#users.values()] }),
      visible: async () => {
        this.#visibleAt = Date.now();
      },
      wake: async () => {
        this.#visibleAt = Date.now();
        if (this.#session || !this.state.server) this.link.wake();
      },

      // Accounts
      login: async (/** @type {string} */ name, /** @type {string} */ password) => {
        await this.#greeted();
        await this.#loggedIn(await this.link.request('LOGIN', [name, password]), name);
      },
      register: async (/** @type {string} */ name, /** @type {string} */ password, /** @type {string} */ invite) => {
        await this.#greeted();
        await this.link.request('REGISTER_USER', [name, password, invite || undefined]);
        await this.#loggedIn(await this.link.request('LOGIN', [name, password]), name);
      },
      setPassword: (/** @type {string} */ login, /** @type {string} */ code, /** @type {string} */ password) =>
        this.#setPassword(login, code, password),
      logout: async () => {
        await Promise.race([this.link.request('LOGOFF'), pause(2000)]).catch(() => undefined);
        const db = this.#db;
        this.#clear();
        this.#set({ auth: 'out', why: '', login: '' });
        await this.#slotDb?.write([['meta', 'session']]);
        await db?.destroy();
      },
      changePassword: (/** @type {string} */ old, /** @type {string} */ password) =>
        request('CHANGE_PASSWORD', [old, password]),
      sessions: () => request('GET_SESSIONS'),
      endSession: (/** @type {number} */ id) => request('END_SESSION', [id]),
      subscribePush: (/** @type {{endpoint: string, keys: Uint8Array}|null} */ subscription) =>
        request('SUBSCRIBE_PUSH', subscription ? [subscription.endpoint, subscription.keys] : ['']),

      // Messages
      older: async (/** @type {number} */ chat, /** @type {number} */ before, /** @type {number} */ limit) => {
        const page = await sync().older(chat, before, limit);
        this.#needUsers(page.messages.map(({ sender }) => sender));
        return page;
      },
      newer: async (/** @type {number} */ chat, /** @type {number} */ after, /** @type {number} */ limit) => {
        const page = await sync().newer(chat, after, limit);
        this.#needUsers(page.messages.map(({ sender }) => sender));
        return page;
      },
      message: async (/** @type {number} */ chat, /** @type {number} */ id) => sync().message(chat, id),
      waiting: async (/** @type {number} */ chat) => sync().waiting(chat),
      send: async (/** @type {Parameters<Sync['enqueue']>[0]} */ message) => sync().enqueue(message),
      retry: async (/** @type {string} */ localId) => sync().retry(localId),
      discard: async (/** @type {string} */ localId) => sync().discard(localId),
      edit: (/** @type {number} */ chat, /** @type {number} */ id, /** @type {string} */ text) =>
        this.#own(chat, id, 'EDIT_MSG', [text], { text, edited: true }),
      remove: (/** @type {number} */ chat, /** @type {number} */ id) =>
        this.#own(chat, id, 'DELETE_MSG', [], {
          text: '', deleted: true, files: [], reactions: [], reply: 0,
        }),
      react: (/** @type {number} */ chat, /** @type {number} */ id, /** @type {string} */ emoji, /** @type {boolean} */ on) =>
        sync().own(chat, id, 'REACT', [on, emoji], { user: this.#me.id, on, emoji }),
      reactions: async (/** @type {number} */ chat, /** @type {number} */ id) => {
        const all = await request('GET_REACTIONS', [chat, id]);
        this.#needUsers(all.map(({ user }) => user));
        return all.map((each) => ({ ...each, name: this.#name(each.user) }));
      },
      markSeen: async (/** @type {number} */ chat, /** @type {number} */ time) => {
        const entry = this.#chats.get(chat);
        if (!entry || time <= entry.info.seen) return;
        entry.info.seen = time;
        if (time >= entry.info.lastTime) entry.info.unread = 0;
        this.#saveChat(entry);
        this.#sendMark(chat);
      },
      typing: async (/** @type {number} */ chat) => {
        if (Date.now() - this.#typedAt < TYPING_EVERY_MS) return;
        this.#typedAt = Date.now();
        await request('TYPING', [chat]).catch(() => undefined);
      },
      setDraft: async (/** @type {number} */ chat, /** @type {string} */ text) => {
        const entry = this.#chats.get(chat);
        if (!entry || entry.draft === text) return;
        this.#setDraft(entry, text);
        await this.#db?.write([['drafts', chat, text || undefined]]);
      },
      search: (/** @type {number} */ chat, /** @type {string} */ query) => this.#search(chat, query),

      // Chats and people
      createChat: async (/** @type {string} */ name, /** @type {string} */ password, /** @type {boolean} */ closed) => {
        const id = await request('CREATE_CHAT', [name, password || undefined]);
        if (closed) await request('SET_CHAT_CLOSED', [id, true]);
        await this.#refreshChat(id);
        return id;
      },
      findChats: async (/** @type {string} */ prefix) =>
        (await request('FIND_CHATS', [prefix, 50])).map(viewChat),
      findUsers: async (/** @type {string} */ prefix) => {
        const users = await request('FIND_USERS', [prefix, 50]);
        users.forEach((user) => this.#putUser(user));
        return users;
      },
      joinChat: async (/** @type {number} */ chat, /** @type {string} */ password) => {
        await request('JOIN_CHAT', [chat, password || undefined]);
        await this.#refreshChat(chat);
      },
      startChat: async (/** @type {number} */ user) => {
        const id = await request('START_CHAT', [user]);
        await this.#refreshChat(id);
        return id;
      },
      leaveChat: leaving('LEAVE_CHAT'),
      deleteChat: leaving('DELETE_CHAT'),
      renameChat: changing('RENAME_CHAT'),
      setTitle: changing('SET_CHAT_TITLE'),
      setChatPassword: (/** @type {number} */ chat, /** @type {string} */ password) =>
        changing('SET_CHAT_PASSWORD')(chat, password || undefined),
      setClosed: changing('SET_CHAT_CLOSED'),
      setNotify: changing('SET_CHAT_NOTIFY'),
      setAdmin: changing('SET_CHAT_ADMIN'),
      setBan: changing('SET_CHAT_BAN'),
      addMember: changing('ADD_MEMBER'),
      members: async (/** @type {number} */ chat) => {
        const members = await request('GET_MEMBERS', [chat]);
        members.forEach(({ id, name, online }) => this.#putUser({ id, name, online }));
        return members;
      },
      createInvite: async (/** @type {{chat?: number, registers?: boolean, uses?: number, days?: number}} */ what) => {
        const { chat = 0, registers = false, uses = 1, days = 7 } = what;
        return request('CREATE_INVITE', [registers, uses, days, chat]);
      },
      invites: async (/** @type {number} */ chat) => {
        const invites = await request('GET_INVITES', [chat]);
        this.#needUsers(invites.map(({ creator }) => creator).filter(Boolean));
        return invites.map((invite) => ({ ...invite, creatorName: this.#name(invite.creator) }));
      },
      endInvite: (/** @type {string} */ hint) => request('END_INVITE', [hint]),
      useInvite: async (/** @type {string} */ code) => {
        await this.online();
        const id = await request('USE_INVITE', [code]);
        await this.#refreshChat(id);
        return id;
      },
      resetPassword: (/** @type {number} */ user) => request('RESET_PASSWORD', [user]),
      setUserDisabled: (/** @type {number} */ user, /** @type {boolean} */ disabled) =>
        request('SET_USER_DISABLED', [user, disabled]),
    };
  }

  /**
   * @param {number} chat
   * @param {number} id
   * @param {'EDIT_MSG'|'DELETE_MSG'} name
   * @param {any[]} values
   * @param {Partial<WireMessage>} patch
   */
  async #own(chat, id, name, values, patch) {
    const sync = this.#sync;
    if (!sync) throw OFFLINE;
    if (!this.#isAuthorized) throw OFFLINE;
    await sync.own(chat, id, name, values, { patch });
    const entry = this.#chats.get(chat);
    if (entry?.last?.id !== id) return;
    entry.last = { ...entry.last, text: patch.text ?? '', deleted: patch.deleted ?? false };
    this.#saveChat(entry);
  }

  /**
   * @param {number} chat
   * @param {string} query
   */
  async #search(chat, query) {
    const LIMIT = 50;
    for (let tries = 1; ; tries += 1) {
      try {
        const hits = await this.#request('SEARCH_MSG', [chat, LIMIT, query]);
        this.#needUsers(hits.map(({ message }) => message.sender));
        return hits;
      } catch (error) {
        const failure = /** @type {Failure} */ (error);
        if (failure.code !== 'not-ready' || tries > 3) throw error;
        await pause(1000 * (failure.number || 1));
      }
    }
  }

  /**
   * Over a connection of its own: the session of this one, perhaps of another user, stays.
   * @param {string} login
   * @param {string} code
   * @param {string} password
   */
  #setPassword(login, code, password) {
    return new Promise((resolve, reject) => {
      const link = new Link(this.link.url, {
        onGreeted: async () => {
          await link.request('SET_PASSWORD', [login, code, password]).then(resolve, reject);
          link.stop();
        },
        onLost: () => {
          reject(OFFLINE);
          link.stop();
        },
        onNotification: () => undefined,
        onDeauth: () => undefined,
        isWanted: () => false,
      });
      link.start();
    });
  }
}

/**
 * @param {WireChat} info
 * @returns {Chat}
 */
function viewChat(info) {
  return {
    ...info, title: info.topic || info.name, lastMessage: null, draft: '', peer: null, typing: [],
  };
}
