/**
 * The data of the logged-in user: chats, people, and messages (through sync.js).
 *
 * It exists in the leader tab while a user is logged in. Notifications and answers change it,
 * `changed` publishes the list of chats to all tabs, and `api` has the methods for tabs.
 */

import { ALL } from './db.js';
import { Sync, whole } from './sync.js';

/** @typedef {import('./types.js').Chat} Chat */
/** @typedef {import('./types.js').Failure} Failure */
/** @typedef {import('./types.js').Me} Me */
/** @typedef {import('./types.js').User} User */
/** @typedef {import('./wire.js').WireChat} WireChat */
/** @typedef {import('./wire.js').WireMessage} WireMessage */
/**
 * @typedef {{id: number, time: number, text: string, sender: number, deleted: boolean,
 *   files: string[]}} Last
 */
/**
 * @typedef {object} Entry
 * @property {WireChat} info
 * @property {Last|null} last
 * @property {{id: number, online: boolean, seen: number, disabled?: boolean}|null} peer
 * @property {number} added when it came to this list, by this browser's clock
 * @property {Map<number, ReturnType<typeof setTimeout>>} typing
 * @property {string} draft
 */

const TYPING_MS = 6_000;
const TYPING_EVERY_MS = 3_000;
/** Chats whose newest page is preloaded; of the others only the last message. */
const CHATS_READ_AHEAD = 20;
const PAGE = 30;
const PREVIEW_CHARS = 200;
const MARK_EVERY_MS = 500;
const UNREAD_MAX = 1000;
const FOUND_MAX = 50;
const SEARCH_TRIES = 4;

/** @param {unknown} error */
const isOffline = (error) => /** @type {Failure} */ (error)?.code === 'offline';
/** @param {number} ms */
const pause = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

/**
 * What the engine provides.
 * @typedef {object} Environment
 * @property {(event: any) => void} emit to all tabs
 * @property {() => void} changed the list of chats did
 * @property {import('./link.js').Link['request']} request rejects with OFFLINE unless authorized
 */

export class UserData {
  /** @type {Map<number, Entry>} */
  #chats = new Map();
  /** @type {Map<number, User>} */
  #users = new Map();
  /** @type {Set<number>} being asked for */
  #asked = new Set();
  /** @type {Map<number, ReturnType<typeof setTimeout>>} markers that wait to be sent */
  #marks = new Map();
  #typedAt = 0;
  #isEnded = false;

  /**
   * @param {Me} me
   * @param {import('./db.js').Database} db
   * @param {Environment} environment
   */
  constructor(me, db, environment) {
    this.me = me;
    this.db = db;
    this.environment = environment;
    this.request = environment.request;
    this.sync = new Sync(db, me.id, {
      request: environment.request,
      onChanged: (changes) => this.#emit({ type: 'changes', changes }),
      onReset: () => this.#emit({ type: 'reset' }),
      onOutgoing: (chat, entries, sent) => {
        if (sent) this.#noteMessage(chat, sent.message);
        this.#changed();
        this.#emit({ type: 'outgoing', chat, entries, sent });
      },
    });
    this.api = this.#makeApi();
  }

  /** Loads the stored data, which suffices to start offline. */
  async load() {
    await this.sync.load();
    const [chats, users, drafts] = await Promise.all([
      this.db.all('chats'), this.db.all('users'), this.db.all('drafts'),
    ]);
    this.#users = new Map(users);
    for (const [id, stored] of chats) this.#chats.set(id, { ...stored, typing: new Map(), draft: '' });
    for (const [id, draft] of drafts) {
      const entry = this.#chats.get(id);
      if (entry) entry.draft = draft;
    }
  }

  /** @param {any} event */
  #emit(event) {
    if (!this.#isEnded) this.environment.emit(event);
  }

  #changed() {
    if (!this.#isEnded) this.environment.changed();
  }

  /** The connection is gone. */
  lost() {
    this.sync.lost();
  }

  /**
   * The session is attached: sends outgoing messages, then catches up.
   * @param {number} minor of the API that is spoken
   * @param {() => void} onChats the list of chats is there
   */
  async online(minor, onChats) {
    // Outgoing messages are sent first: if one was stored already, its nonce identifies it before
    // the catch-up shows it.
    this.sync.ready();
    const infos = await this.request('GET_MY_CHATS');
    this.#mergeChats(infos);
    onChats();
    const newest = Math.max(0, ...infos.map(({ lastTime }) => lastTime));
    await this.#upgrade(minor);
    await this.#catchUp(newest);
    this.#readAhead().catch((error) => isOffline(error) || console.warn(error));
  }

  /**
   * Reloads everything after a change of the API version, whose structures have other fields.
   * @param {number} minor
   */
  async #upgrade(minor) {
    if (await this.db.get('meta', 'minor') === minor) return;
    if (this.sync.cursor !== undefined) await this.sync.reset();
    await this.db.write([['meta', 'minor', minor]]);
  }

  /** @param {number} newest */
  async #catchUp(newest) {
    for (;;) {
      try {
        return await this.sync.catchUp(newest);
      } catch (error) {
        if (isOffline(error) || /** @type {Failure} */ (error).code === 'login-required') throw error;
        // A chat ended during the catch-up: repeat it for the others.
        await pause(1000);
      }
    }
  }

  /**
   * The user is logged out, or the session ended.
   * @param {boolean} keepsUnsent drafts and unsent messages wait for the same user
   */
  async end(keepsUnsent) {
    this.#isEnded = true;
    this.sync.lost();
    for (const timer of this.#marks.values()) clearTimeout(timer);
    for (const { typing } of this.#chats.values()) for (const timer of typing.values()) clearTimeout(timer);
    if (!keepsUnsent) return this.db.destroy();
    await this.db.write([['messages', ALL], ['chats', ALL], ['users', ALL], ['meta', ALL]]);
    this.db.close();
  }

  /** @param {string} name */
  rename(name) {
    this.me = { ...this.me, name };
  }

  close() {
    this.sync.lost();
    this.db.close();
  }

  /** Storage failed, and its content is lost. */
  onStorageLost() {
    this.sync.reset(this.sync.cursor);
  }

  users() {
    return [...this.#users.values()];
  }

  chatList() {
    return [...this.#chats.values()]
      .sort((a, b) => (b.info.lastTime || b.added) - (a.info.lastTime || a.added))
      .map((entry) => this.#view(entry));
  }

  /**
   * @param {Entry} entry
   * @returns {Chat}
   */
  #view({ info, last, peer, typing, draft }) {
    const waiting = this.sync.waiting(info.id).at(-1);
    const shown = waiting ? {
      time: waiting.time, text: waiting.text.slice(0, PREVIEW_CHARS), sender: this.me.id,
      deleted: false, files: waiting.files.map(({ name }) => name), state: waiting.state,
    } : last && { ...last, state: /** @type {const} */ ('stored') };
    return {
      ...viewChat(info),
      lastMessage: shown && { ...shown, senderName: this.#name(shown.sender) },
      peer, draft,
      typing: [...typing.keys()].map((id) => this.#name(id)).filter(Boolean),
    };
  }

  /** @param {number} id */
  #name(id) {
    return id === this.me.id ? this.me.name : this.#users.get(id)?.name ?? '';
  }

  // --- Chats ---

  /** @param {WireChat[]} infos all of mine */
  #mergeChats(infos) {
    const mine = new Set(infos.map(({ id }) => id));
    for (const id of [...this.#chats.keys()]) if (!mine.has(id)) this.#dropChat(id);
    // In a new browser none of them has just come: those without messages go last.
    const added = this.#chats.size === 0 ? 0 : undefined;
    for (const info of infos) this.#putChat(info, added);
  }

  /**
   * @param {WireChat} info
   * @param {number} [added] when it came to this list
   */
  #putChat(info, added = Date.now() * 1000) {
    const known = this.#chats.get(info.id);
    const entry = known ?? {
      info, last: null, peer: null, added, typing: new Map(), draft: '',
    };
    const seen = Math.max(info.seen, known?.info.seen ?? 0);
    // My marker has not reached the server yet.
    if (seen > info.seen) this.#sendMark(info.id);
    const isAllSeen = seen >= info.lastTime;
    entry.info = { ...info, seen, unread: isAllSeen ? 0 : info.unread };
    this.#chats.set(info.id, entry);
    this.#saveChat(entry);
    if (!known) this.db.get('drafts', info.id).then((draft) => draft && this.#setDraft(entry, draft));
    return entry;
  }

  /** @param {Entry} entry */
  #saveChat(entry) {
    const { info, last, peer, added } = entry;
    this.db.write([['chats', info.id, { info, last, peer, added }]]);
    this.#changed();
  }

  /** @param {number} id */
  #dropChat(id) {
    if (!this.#chats.delete(id)) return;
    this.sync.forget(id);
    this.db.write([['chats', id]]);
    this.#changed();
  }

  /** @param {number} id */
  async #refreshChat(id) {
    const info = await this.request('GET_CHAT', [id]);
    if (info.isMember) await this.#onChat(info);
    else this.#dropChat(id);
  }

  /**
   * Updates a chat's entry in the list for a message that arrived.
   * @param {number} chat
   * @param {WireMessage} message
   */
  #noteMessage(chat, message) {
    const entry = this.#chats.get(chat);
    if (!entry) return;
    const { info, last } = entry;
    const isMine = message.sender === this.me.id;
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
   * Preloads pages of the newest chats, for the list and for an offline start, and the names and
   * presence of the other users of direct chats.
   */
  async #readAhead() {
    const entries = [...this.#chats.values()].sort((a, b) => b.info.lastTime - a.info.lastTime);
    const directs = entries.filter(({ info }) => info.kind === 'direct');
    await Promise.all(directs.map((entry) => this.#readPeer(entry)));
    for (const [index, entry] of entries.entries()) {
      if (this.#isEnded || !entry.info.lastTime) continue;
      const isKnown = entry.last && entry.last.time >= entry.info.lastTime;
      if (index >= CHATS_READ_AHEAD ? isKnown : this.sync.windows.has(entry.info.id)) continue;
      const limit = index < CHATS_READ_AHEAD ? PAGE : 1;
      const { messages } = await this.sync.older(entry.info.id, 0, limit);
      const last = messages.at(-1);
      if (last) this.#noteMessage(entry.info.id, last);
      this.#needUsers(messages.map(({ sender }) => sender));
    }
    await this.sync.prune();
  }

  /** @param {Entry} entry */
  async #readPeer(entry) {
    const members = await this.api.members(entry.info.id);
    const peer = members.find(({ id }) => id !== this.me.id);
    if (peer) {
      const { id, online, seen } = peer;
      entry.peer = { id, online, seen, disabled: !online && entry.peer?.disabled };
      if (!online) await this.#readDisabled(id);
    }
    this.#saveChat(entry);
  }

  /**
   * Asks whether a user who is offline is disabled.
   * @param {number} id
   */
  async #readDisabled(id) {
    const user = await this.request('GET_USER', [id]).catch(() => null);
    if (!user) return;
    this.#putUser(user);
    for (const entry of this.#chats.values()) {
      if (entry.peer?.id === id) entry.peer = { ...entry.peer, disabled: user.disabled };
    }
    this.#changed();
  }

  /** @param {Partial<User> & {id: number, name: string}} user */
  #putUser(user) {
    this.#putUsers([user]);
  }

  /** @param {(Partial<User> & {id: number, name: string})[]} users */
  #putUsers(users) {
    /** @type {import('./db.js').Change[]} */
    const writes = [];
    const all = users.map((user) => {
      const known = this.#users.get(user.id);
      const next = {
        online: false, operator: false, bot: false, disabled: false, ...known, ...user,
      };
      this.#users.set(user.id, next);
      if (known?.name !== user.name) writes.push(['users', user.id, next]);
      return next;
    });
    if (writes.length > 0) this.db.write(writes);
    this.#emit({ type: 'users', users: all });
  }

  /**
   * Requests the names of unknown users.
   * @param {number[]} ids
   */
  #needUsers(ids) {
    for (const id of new Set(ids)) {
      if (this.#users.has(id) || this.#asked.has(id) || id === this.me.id) continue;
      this.#asked.add(id);
      this.request('GET_USER', [id]).then((user) => {
        this.#putUser(user);
        this.#changed();
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
      await this.request('MARK_SEEN', [chat, entry.info.seen]).catch(() => undefined);
      if (entry.info.unread > 0) await this.#refreshChat(chat).catch(() => undefined);
    }, MARK_EVERY_MS));
  }

  /**
   * @param {Entry} entry
   * @param {string} text
   */
  #setDraft(entry, text) {
    entry.draft = text;
    this.#changed();
  }

  // --- Notifications ---

  /**
   * @param {string} name
   * @param {any} body
   */
  onNotification(name, body) {
    const { sync } = this;
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
    if (user === this.me.id) {
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
      this.#changed();
    }, TYPING_MS));
    this.#changed();
  }

  /** @param {{user: number, online: boolean}} presence */
  #onPresence({ user, online }) {
    const known = this.#users.get(user);
    if (known) this.#putUser({ ...known, online });
    for (const entry of this.#chats.values()) {
      if (entry.peer?.id !== user) continue;
      // A user who is online is not disabled; one who has just gone may be.
      entry.peer = { ...entry.peer, online, disabled: !online && entry.peer.disabled };
      if (!online) this.#readDisabled(user);
    }
    this.#changed();
  }

  // --- Methods for tabs ---

  #makeApi() {
    const { sync } = this;
    const request = this.request;
    /**
     * Sends a request, then reloads the chat: the own connection gets no notification.
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
      // Messages
      older: async (/** @type {number} */ chat, /** @type {number} */ before, /** @type {number} */ limit) => {
        const page = await sync.older(chat, before, limit);
        this.#needUsers(page.messages.map(({ sender }) => sender));
        return page;
      },
      newer: async (/** @type {number} */ chat, /** @type {number} */ after, /** @type {number} */ limit) => {
        const page = await sync.newer(chat, after, limit);
        this.#needUsers(page.messages.map(({ sender }) => sender));
        return page;
      },
      message: async (/** @type {number} */ chat, /** @type {number} */ id) => sync.message(chat, id),
      waiting: async (/** @type {number} */ chat) => sync.waiting(chat),
      send: async (/** @type {Parameters<Sync['enqueue']>[0]} */ message) => sync.enqueue(message),
      retry: async (/** @type {string} */ localId) => sync.retry(localId),
      discard: async (/** @type {string} */ localId) => sync.discard(localId),
      edit: (/** @type {number} */ chat, /** @type {number} */ id, /** @type {string} */ text) =>
        this.#own(chat, id, 'EDIT_MSG', [text], { text, edited: true }),
      remove: (/** @type {number} */ chat, /** @type {number} */ id) =>
        this.#own(chat, id, 'DELETE_MSG', [], {
          text: '', deleted: true, files: [], reactions: [], reply: 0,
        }),
      react: (/** @type {number} */ chat, /** @type {number} */ id, /** @type {string} */ emoji, /** @type {boolean} */ on) =>
        sync.own(chat, id, 'REACT', [on, emoji], { user: this.me.id, on, emoji }),
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
        await this.db.write([['drafts', chat, text || undefined]]);
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
        (await request('FIND_CHATS', [prefix, FOUND_MAX])).map(viewChat),
      findUsers: async (/** @type {string} */ prefix) => {
        const users = await request('FIND_USERS', [prefix, FOUND_MAX]);
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
        this.#putUsers(members.map(({ id, name, online }) => ({ id, name, online })));
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
        const id = await request('USE_INVITE', [code]);
        await this.#refreshChat(id);
        return id;
      },
      resetPassword: (/** @type {number} */ user) => request('RESET_PASSWORD', [user]),
      setUserDisabled: (/** @type {number} */ user, /** @type {boolean} */ disabled) =>
        request('SET_USER_DISABLED', [user, disabled]),

      // The account
      changePassword: (/** @type {string} */ old, /** @type {string} */ password) =>
        request('CHANGE_PASSWORD', [old, password]),
      sessions: () => request('GET_SESSIONS'),
      endSession: (/** @type {number} */ id) => request('END_SESSION', [id]),
      subscribePush: (/** @type {{endpoint: string, keys: Uint8Array}|null} */ subscription) =>
        request('SUBSCRIBE_PUSH', subscription ? [subscription.endpoint, subscription.keys] : ['']),
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
    await this.sync.own(chat, id, name, values, { patch });
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
    for (let tries = 1; ; tries += 1) {
      try {
        const hits = await this.request('SEARCH_MSG', [chat, FOUND_MAX, query]);
        this.#needUsers(hits.map(({ message }) => message.sender));
        return hits;
      } catch (error) {
        const failure = /** @type {Failure} */ (error);
        if (failure.code !== 'not-ready' || tries >= SEARCH_TRIES) throw error;
        await pause(1000 * (failure.number || 1));
      }
    }
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
