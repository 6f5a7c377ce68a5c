/**
 * A tab's window of one chat's messages: what a timeline shows.
 *
 * The messages are contiguous. Changes from the engine are applied as in storage. Changes that
 * arrive while a page is being loaded are applied to the page once more.
 */

import { applyChange, whole } from './sync.js';
import { signal } from './view.js';

/** @typedef {import('./wire.js').WireMessage} WireMessage */
/** @typedef {import('./sync.js').MessageChange} MessageChange */
/** @typedef {import('./sync.js').Outgoing} Outgoing */
/** @typedef {import('./types.js').Message} Message */
/** @typedef {import('./types.js').Chat} Chat */
/**
 * @typedef {object} Environment
 * @property {(method: string, args: any[]) => Promise<any>} call
 * @property {() => {id: number, name: string}} me
 * @property {(user: number) => string} name empty while it is unknown
 * @property {() => Chat | undefined} chat
 * @property {() => boolean} isHidden whether the page is hidden
 */

const PAGE = 60;
const AROUND = 40;
/** Pages that are searched for the first unread message; after them the newest page is shown. */
const UNREAD_PAGES = 6;
const UNREAD_PAGE = 200;
/** Messages whose reactions are cached, at most; then the cache is cleared. */
const ASKED_MAX = 500;
/** Messages that stay loaded when a chat is left and opened again. */
const KEPT = 200;

/** @param {string} text */
const escapeRegExp = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');

/**
 * Whether a text mentions somebody (protocol, section 5a).
 * @param {string} text
 * @param {string} name
 */
export function mentions(text, name) {
  if (!text.includes('@')) return false;
  const names = [name, 'all'].map((each) => escapeRegExp(each.toLowerCase().normalize('NFC')));
  return new RegExp(`(?<![\\p{L}\\p{N}])@(${names.join('|')})(?![\\p{L}\\p{N}])`, 'u')
    .test(text.toLowerCase().normalize('NFC'));
}

export class History {
  items = signal(/** @type {Message[]} */ ([]));
  atStart = signal(false);
  atEnd = signal(true);
  loaded = signal(false);
  firstUnread = signal(0);
  /** Whether `firstUnread` is known: only then can the view be placed. */
  ready = signal(false);

  /** @type {WireMessage[]} ascending */
  #messages = [];
  /** @type {Outgoing[]} */
  #outgoing = [];
  /** @type {Map<number, string>} local ids of messages that were outgoing in this tab */
  #localIds = new Map();
  /** @type {Map<number, WireMessage | null>} quoted messages; null: requested, or gone */
  #quoted = new Map();
  /**
   * By message: my emoji besides those that list me; empty while requested.
   * @type {Map<number, Set<string>>}
   */
  #mine = new Map();
  /** @type {WeakMap<WireMessage, Message>} */
  #views = new WeakMap();
  /** @type {Set<MessageChange[]>} changes since the request, for each page being loaded */
  #recordings = new Set();
  /** @type {Promise<void> | undefined} */
  #opening;
  /** Counts replaced windows, to drop pages of an earlier one. */
  #window = 0;

  /**
   * @param {number} chat
   * @param {Environment} environment
   */
  constructor(chat, environment) {
    this.chat = chat;
    this.environment = environment;
  }

  // --- Loading ---

  /** Opens the chat at the first unread message. */
  open() {
    if (!this.#opening) {
      this.ready.value = false;
      this.#opening = this.#open().finally(() => {
        this.#opening = undefined;
        this.ready.value = true;
      });
    }
    return this.#opening;
  }

  async #open() {
    this.setOutgoing(await this.environment.call('waiting', [this.chat]));
    const chat = this.environment.chat();
    const isUnread = (chat?.unread ?? 0) > 0;
    this.firstUnread.value = 0;
    if (this.loaded.peek() && this.atEnd.peek()) this.#trim();
    else await this.#loadNewest(PAGE);
    if (!chat || !isUnread) return;
    // The chat was never opened: there is no position to continue from.
    const pages = chat.seen === 0 ? 0 : UNREAD_PAGES;
    for (let page = 0; page < pages && !this.#reaches(chat.seen); page += 1) await this.#loadOlder(UNREAD_PAGE);
    if (!this.#reaches(chat.seen) && chat.seen > 0) return;
    const me = this.environment.me().id;
    const first = this.#messages.find((message) =>
      message.created > chat.seen && message.sender !== me && !message.deleted);
    this.firstUnread.value = first?.id ?? 0;
  }

  /** @param {number} time */
  #reaches(time) {
    return this.atStart.peek() || (this.#messages[0]?.created ?? Infinity) <= time;
  }

  #trim() {
    if (this.#messages.length <= 2 * KEPT) return;
    this.#messages = this.#messages.slice(-KEPT);
    this.atStart.value = false;
    this.#show();
  }

  /**
   * Loads a page, and applies the changes that arrived meanwhile.
   * @param {string} method
   * @param {any[]} args
   * @returns {Promise<{messages: WireMessage[], atStart: boolean,
   *   atEnd: boolean} | null>} null: the window was replaced
   */
  async #page(method, ...args) {
    const window = this.#window;
    /** @type {MessageChange[]} */
    const recording = [];
    this.#recordings.add(recording);
    try {
      const page = await this.environment.call(method, [this.chat, ...args]);
      if (window !== this.#window) return null;
      return { ...page, messages: applyAll(page.messages, recording, page.atEnd ?? false) };
    } finally {
      this.#recordings.delete(recording);
    }
  }

  /** @param {number} limit */
  async #loadNewest(limit) {
    const recorded = /** @type {MessageChange[]} */ ([]);
    this.#recordings.add(recorded);
    try {
      const page = await this.environment.call('older', [this.chat, 0, limit]);
      this.#replace(applyAll(page.messages, recorded, true), page.atStart, true);
    } finally {
      this.#recordings.delete(recorded);
    }
  }

  /**
   * @param {WireMessage[]} messages
   * @param {boolean} atStart
   * @param {boolean} atEnd
   */
  #replace(messages, atStart, atEnd) {
    this.#window += 1;
    this.#messages = messages;
    this.atStart.value = atStart;
    this.atEnd.value = atEnd;
    this.loaded.value = true;
    this.#show();
  }

  loadOlder() {
    return this.#loadOlder(PAGE);
  }

  /** @param {number} limit */
  async #loadOlder(limit) {
    if (this.atStart.peek()) return;
    const page = await this.#page('older', this.#messages[0]?.id ?? 0, limit);
    if (!page) return;
    this.#merge(page.messages);
    this.atStart.value = page.atStart;
  }

  async loadNewer() {
    if (this.atEnd.peek()) return;
    const page = await this.#page('newer', this.#messages.at(-1)?.id ?? 0, PAGE);
    if (!page) return;
    this.#merge(page.messages);
    this.atEnd.value = page.atEnd;
  }

  /** @param {number} id */
  async loadAround(id) {
    if (!this.#messages.some((message) => message.id === id)) await this.#loadAround(id);
  }

  /** @param {number} id */
  async #loadAround(id) {
    const [before, after] = await Promise.all([
      this.#page('older', id + 1, AROUND), this.#page('newer', id, AROUND),
    ]);
    if (before && after) this.#replace([...before.messages, ...after.messages], before.atStart, after.atEnd);
  }

  async jumpToNewest() {
    if (!this.atEnd.peek()) await this.#loadNewest(PAGE);
  }

  /** Reloads everything: storage was reset, or the leader changed. */
  async reload() {
    if (!this.loaded.peek()) return;
    this.setOutgoing(await this.environment.call('waiting', [this.chat]));
    if (this.atEnd.peek()) return this.#loadNewest(Math.min(Math.max(this.#messages.length, PAGE), KEPT));
    await this.#loadAround(this.#messages[this.#messages.length >> 1]?.id ?? 0);
  }

  // --- Changes ---

  /** @param {MessageChange[]} changes of this chat */
  apply(changes) {
    for (const recording of this.#recordings) recording.push(...changes);
    for (const change of changes) {
      this.#noteMine(change);
      const quoted = this.#quoted.get(change.id);
      if (quoted) this.#quoted.set(change.id, applyChange(quoted, change) ?? null);
      if (quoted) this.#forgetViews((message) => message.reply === change.id);
    }
    if (!this.loaded.peek()) return;
    const before = this.#messages;
    const newest = before.at(-1)?.id ?? 0;
    this.#messages = applyAll(before, changes, this.atEnd.peek(), this.atStart.peek());
    this.#markUnread(this.#messages.filter(({ id }) => id > newest));
    this.#show();
  }

  /**
   * Draws the unread line above messages that arrive while the page is hidden.
   * @param {WireMessage[]} fresh
   */
  #markUnread(fresh) {
    if (!this.environment.isHidden()) return;
    const seen = this.environment.chat()?.seen ?? 0;
    const marked = this.#messages.find(({ id }) => id === this.firstUnread.peek());
    if (marked && marked.created > seen) return;
    const me = this.environment.me().id;
    const first = fresh.find(({ sender, deleted }) => sender !== me && !deleted);
    if (first) this.firstUnread.value = first.id;
  }

  /** @param {WireMessage[]} messages */
  #merge(messages) {
    this.#messages = applyAll(this.#messages, messages.map((message) => whole(this.chat, message)), true, true);
    this.#show();
  }

  /**
   * @param {Outgoing[]} entries
   * @param {{localId: string, message: WireMessage}} [sent]
   */
  setOutgoing(entries, sent) {
    this.#outgoing = entries;
    if (sent) {
      this.#localIds.set(sent.message.id, sent.localId);
      // Seen before its local id was known: its element would be replaced by the next change.
      this.#forgetViews(({ id }) => id === sent.message.id);
      this.apply([whole(this.chat, sent.message)]);
    } else this.#show();
  }

  /** Names have changed. */
  renamed() {
    this.#forgetViews((message) => {
      const view = this.#views.get(message);
      return !view?.senderName || (view.reply !== undefined && !view.reply.senderName);
    });
    this.#show();
  }

  /** @param {(message: WireMessage) => boolean} isWanted */
  #forgetViews(isWanted) {
    for (const message of this.#messages) if (isWanted(message)) this.#views.delete(message);
  }

  // --- What is shown ---

  #show() {
    const stored = this.#messages.map((message) => this.#view(message));
    const waiting = this.#outgoing.map((entry) => this.#viewOutgoing(entry));
    this.items.value = this.atEnd.peek() ? [...stored, ...waiting] : stored;
  }

  /**
   * @param {WireMessage} message
   * @returns {Message}
   */
  #view(message) {
    const known = this.#views.get(message);
    if (known) return known;
    const me = this.environment.me();
    const isMine = message.sender === me.id;
    /** @type {Message} */
    const view = {
      ...message,
      localId: this.#localIds.get(message.id),
      chat: this.chat,
      senderName: this.environment.name(message.sender),
      reply: message.reply ? this.#quote(message.reply) : undefined,
      reactions: message.reactions.map(({ emoji, count, shown }) => ({
        emoji, count, mine: shown.includes(me.id) || this.#isMine(message.id, emoji, count > shown.length),
        users: shown,
      })),
      state: 'stored',
      mentionsMe: !isMine && mentions(message.text, me.name),
    };
    this.#views.set(message, view);
    return view;
  }

  /**
   * @param {Outgoing} entry
   * @returns {Message}
   */
  #viewOutgoing(entry) {
    const me = this.environment.me();
    return {
      id: 0, localId: entry.localId, chat: this.chat, sender: me.id, senderName: me.name,
      created: entry.time, updated: entry.time, edited: false, deleted: false, text: entry.text,
      reply: entry.reply ? this.#quote(entry.reply) : undefined,
      files: entry.files, reactions: [], state: entry.state, mentionsMe: false,
      reason: entry.reason, code: entry.code,
    };
  }

  /**
   * A reaction lists only the first users who gave it. Whether I am among the others has to be
   * requested.
   * @param {number} id
   * @param {string} emoji
   * @param {boolean} hasOthers
   */
  #isMine(id, emoji, hasOthers) {
    const mine = this.#mine.get(id);
    if (!mine && hasOthers) this.#askMine(id);
    return hasOthers && Boolean(mine?.has(emoji));
  }

  /** @param {number} id */
  async #askMine(id) {
    /** @type {Set<string>} */
    const mine = new Set();
    if (this.#mine.size >= ASKED_MAX) this.#mine.clear();
    this.#mine.set(id, mine);
    /** @type {{user: number, emoji: string}[]} */
    const all = await this.environment.call('reactions', [this.chat, id]).catch(() => []);
    const me = this.environment.me().id;
    for (const { user, emoji } of all) if (user === me) mine.add(emoji);
    if (mine.size === 0) return;
    this.#forgetViews((message) => message.id === id);
    this.#show();
  }

  /** @param {MessageChange} change */
  #noteMine(change) {
    if ('message' in change) this.#mine.delete(change.id);
    else if ('emoji' in change && change.user === this.environment.me().id) {
      if (change.on) this.#mine.get(change.id)?.add(change.emoji);
      else this.#mine.get(change.id)?.delete(change.emoji);
    }
  }

  /** @param {number} id */
  #quote(id) {
    const quoted = this.#messages.find((message) => message.id === id) ?? this.#quoted.get(id);
    if (quoted === undefined) this.#askQuoted(id);
    else if (quoted) this.#quoted.set(id, quoted);
    return {
      id,
      sender: quoted?.sender ?? 0,
      senderName: quoted ? this.environment.name(quoted.sender) : '',
      text: quoted?.text ?? '',
      deleted: quoted?.deleted ?? false,
    };
  }

  /** @param {number} id */
  async #askQuoted(id) {
    this.#quoted.set(id, null);
    const message = await this.environment.call('message', [this.chat, id]).catch(() => undefined);
    if (!message) return;
    this.#quoted.set(id, message);
    this.#forgetViews(({ reply }) => reply === id);
    this.#show();
  }
}

/**
 * Applies changes to a contiguous list. A message that is not in the list is added if it belongs
 * inside, or beyond an end of the chat that the list reaches.
 * @param {WireMessage[]} messages ascending
 * @param {MessageChange[]} changes
 * @param {boolean} isEnd
 * @param {boolean} [isStart]
 * @returns {WireMessage[]}
 */
export function applyAll(messages, changes, isEnd, isStart = false) {
  const byId = new Map(messages.map((message) => [message.id, message]));
  const [first, last] = [messages[0]?.id ?? 0, messages.at(-1)?.id ?? 0];
  let isSorted = true;
  let end = last;
  for (const change of changes) {
    const old = byId.get(change.id);
    const isInside = (isStart || change.id >= first) && (isEnd || change.id <= last);
    if (!old && !isInside) continue;
    const next = applyChange(old, change);
    if (!next) continue;
    if (!old) {
      isSorted &&= next.id > end;
      end = Math.max(end, next.id);
    }
    byId.set(next.id, next);
  }
  const list = [...byId.values()];
  return isSorted ? list : list.sort((a, b) => a.id - b.id);
}
