/**
 * Synchronisation of messages: an exact local copy, and the queue of outgoing messages.
 *
 * - A change is a whole message, a patch, or a reaction. Only `applyChange` changes a message, here
 *   and in the timelines of all tabs; `updated` decides which version is newer.
 * - For each chat a window is stored: all messages from an id on, without gaps. Older pages widen
 *   it. Changes made while the browser was offline are fetched by the cursor (protocol, section 3).
 * - The cursor is written in one transaction with the changes that it covers. It does not move
 *   while an own change waits for its answer: if the answer is lost, no notification replaces it.
 * - An outgoing message is stored with its nonce (idempotency key) first, then sent, one at a time
 *   per chat, and deleted in the transaction that stores the message.
 * - All incoming changes go through one inbox in order: a reaction that follows a page or an answer
 *   would be lost if it were applied before them.
 */

import { ALL } from './db.js';
import { encodeExtras } from './wire.js';

/** @typedef {import('./wire.js').WireMessage} WireMessage */
/** @typedef {import('./types.js').Failure} Failure */
/** @typedef {{chat: number, id: number, updated: number, message: WireMessage}} Whole */
/** @typedef {{chat: number, id: number, updated: number, patch: Partial<WireMessage>}} Patch */
/**
 * @typedef {{chat: number, id: number, updated: number, user: number, on: boolean,
 *   emoji: string}} ReactionChange
 */
/** @typedef {Whole | Patch | ReactionChange} MessageChange */

/**
 * A message that is not stored by the server yet.
 * @typedef {object} Outgoing
 * @property {string} localId grows
 * @property {number} chat
 * @property {string} text
 * @property {bigint} nonce
 * @property {number} reply
 * @property {import('./types.js').FileInfo[]} files
 * @property {number} time
 * @property {'sending'|'failed'} state
 * @property {string} [reason]
 * @property {string} [code]
 */

/**
 * @typedef {object} SyncOwner
 * @property {import('./link.js').Link['request']} request
 * @property {(changes: MessageChange[]) => void} onChanged changes that were stored
 * @property {(chat: number, entries: Outgoing[], sent?: {localId: string,
 *   message: WireMessage}) => void} onOutgoing
 * @property {() => void} onReset the stored messages are gone
 */

/** Users that a reaction lists, at most. */
const SHOWN_MAX = 20;
/** Messages of a chat that stay stored in this browser, at most. */
const KEPT_MAX = 1_000;
/** Longest offline time that is caught up; after a longer one, pages are loaded on demand. */
const CATCH_UP_MAX_US = 7 * 86_400e6;
const RETRY_MAX_S = 60;
/** Decline codes after which the same request can succeed later. */
const TEMPORARY = new Set(['rate-limited', 'storage-failed', 'shutting-down']);

/**
 * @param {WireMessage | undefined} old
 * @param {MessageChange} change
 * @returns {WireMessage | undefined} the same object when nothing changes
 */
export function applyChange(old, change) {
  if ('message' in change) {
    return old && old.updated > change.updated ? old : change.message;
  }
  if (!old || old.updated >= change.updated) return old;
  if ('patch' in change) return { ...old, ...change.patch, updated: change.updated };
  return { ...old, updated: change.updated, reactions: react(old.reactions, change) };
}

/**
 * @param {WireMessage['reactions']} reactions
 * @param {ReactionChange} change
 */
function react(reactions, { user, on, emoji }) {
  const known = reactions.find((reaction) => reaction.emoji === emoji);
  if (!known) return on ? [...reactions, { emoji, count: 1, shown: [user] }] : reactions;
  const others = known.shown.filter((id) => id !== user);
  const next = {
    emoji,
    count: known.count + (on ? 1 : -1),
    shown: on && others.length < SHOWN_MAX ? [...others, user] : others,
  };
  return reactions
    .map((reaction) => (reaction === known ? next : reaction))
    .filter(({ count }) => count > 0);
}

/**
 * @param {number} chat
 * @param {WireMessage} message
 * @returns {Whole}
 */
export const whole = (chat, message) => ({ chat, id: message.id, updated: message.updated, message });

/** @returns {bigint} */
function randomNonce() {
  return crypto.getRandomValues(new BigUint64Array(1))[0];
}

export class Sync {
  /** @type {number | undefined} all changes up to this time are stored; undefined: none yet */
  cursor;
  /** @type {Map<number, {from: number, atStart: boolean}>} the stored window of each chat */
  windows = new Map();
  /** @type {Outgoing[]} ascending */
  outgoing = [];

  #isCaughtUp = false;
  /** The newest live notification since the catch-up. */
  #live = 0;
  #ownChanges = 0;
  /** @type {{change: MessageChange, isLive?: boolean, sent?: Outgoing}[]} */
  #inbox = [];
  #queue = Promise.resolve();
  /** @type {Set<number>} chats whose outgoing messages are being sent */
  #sending = new Set();
  #isReady = false;
  /** Counts connections. */
  #generation = 0;
  /** Counts resets. */
  #epoch = 0;

  /**
   * @param {import('./db.js').Database} db
   * @param {number} me
   * @param {SyncOwner} owner
   */
  constructor(db, me, owner) {
    this.db = db;
    this.me = me;
    this.owner = owner;
  }

  async load() {
    const [cursor, windows] = await this.db.getMany('meta', ['cursor', 'windows']);
    this.cursor = cursor;
    this.windows = windows ?? new Map();
    this.outgoing = (await this.db.all('outbox')).map(([, entry]) => entry);
  }

  /** The connection is gone. */
  lost() {
    this.#isReady = this.#isCaughtUp = false;
    this.#live = this.#ownChanges = 0;
    this.#generation += 1;
  }

  /** The session is restored: sends what waits. To be called before anything else is asked for. */
  ready() {
    this.#isReady = true;
    for (const { chat } of this.outgoing) this.#sendAll(chat);
  }

  /**
   * Jobs that read and write messages run one after the other.
   * @template T
   * @param {() => Promise<T>} job
   * @returns {Promise<T>}
   */
  #serial(job) {
    const done = this.#queue.then(job);
    this.#queue = done.then(() => undefined, () => undefined);
    return done;
  }

  /**
   * Notifications, or answers to own changes.
   * @param {MessageChange[]} changes
   * @param {boolean} [isLive] the cursor may move with them
   * @returns {Promise<void>} settles when they are stored
   */
  change(changes, isLive = false) {
    for (const change of changes) this.#inbox.push({ change, isLive: isLive && this.#isCaughtUp });
    return this.#serial(() => this.#drain());
  }

  /** Stores what is in the inbox, with the cursor, in one transaction. */
  async #drain() {
    const inbox = this.#inbox;
    if (inbox.length === 0) return;
    this.#inbox = [];
    const changes = inbox.map(({ change }) => change);
    const writes = await this.#applied(changes);
    for (const { change, isLive, sent } of inbox) {
      if (isLive) this.#live = Math.max(this.#live, change.updated);
      if (sent) writes.push(['outbox', sent.localId]);
    }
    const cursor = this.#isCaughtUp && this.#ownChanges === 0 ? this.#live : 0;
    if (this.cursor !== undefined && cursor > this.cursor) {
      this.cursor = cursor;
      writes.push(['meta', 'cursor', cursor]);
    }
    await this.db.write(writes);
    // Before the change: a message that was sent is not shown a second time for a moment.
    for (const { change, sent } of inbox) {
      if (!sent || !('message' in change)) continue;
      this.outgoing = this.outgoing.filter((each) => each !== sent);
      this.owner.onOutgoing(sent.chat, this.waiting(sent.chat), { localId: sent.localId, message: change.message });
    }
    this.owner.onChanged(changes);
  }

  /**
   * @param {MessageChange[]} changes
   * @returns {Promise<import('./db.js').Change[]>}
   */
  async #applied(changes) {
    /** @type {Map<string, [number, number]>} */
    const keys = new Map(changes.map(({ chat, id }) => [`${chat} ${id}`, [chat, id]]));
    const stored = await this.db.getMany('messages', [...keys.values()]);
    const names = [...keys.keys()];
    const messages = new Map(names.map((name, index) => [name, stored[index]]));
    for (const change of changes) {
      const name = `${change.chat} ${change.id}`;
      messages.set(name, applyChange(messages.get(name), change));
    }
    return names
      .filter((name, index) => messages.get(name) !== stored[index])
      .map((name) => ['messages', keys.get(name), messages.get(name)]);
  }

  /**
   * Makes an own change: the answer holds its time.
   * @param {number} chat
   * @param {number} id
   * @param {'EDIT_MSG'|'DELETE_MSG'|'REACT'} name
   * @param {any[]} values
   * @param {{patch: Partial<WireMessage>} | {user: number, on: boolean, emoji: string}} what
   */
  async own(chat, id, name, values, what) {
    this.#ownChanges += 1;
    const generation = this.#generation;
    try {
      const isStored = (await this.db.get('messages', [chat, id])) !== undefined;
      await this.owner.request(name, [chat, id, ...values], (updated) => {
        this.#inbox.push({ change: /** @type {MessageChange} */ ({ chat, id, updated, ...what }) });
      });
      // An older version of what is not stored may be on its way with the catch-up.
      if (!isStored) await this.owner.request('REQUEST_CHAT_PAGE', [chat, id + 1, 1], this.#take(chat));
      await this.#serial(() => this.#drain());
    } finally {
      // After a lost connection the catch-up has what the answer would have said.
      if (generation === this.#generation) this.#ownChanges -= 1;
    }
  }

  /**
   * @param {number} chat
   * @returns {(messages: WireMessage[]) => void} puts a page into the inbox as it arrives
   */
  #take(chat) {
    return (messages) => {
      for (const message of messages) this.#inbox.push({ change: whole(chat, message) });
    };
  }

  /**
   * Reads what was missed. Live notifications that come meanwhile do not move the cursor.
   * @param {number} newest time of the newest message of all chats, known before this
   */
  async catchUp(newest) {
    const generation = this.#generation;
    // A cursor of 0 is that of chats without messages: it says nothing about how long it has been.
    const isTooOld = this.cursor !== undefined && this.cursor > 0 && newest - this.cursor > CATCH_UP_MAX_US;
    if (this.cursor === undefined || isTooOld) await this.reset(newest);
    const from = /** @type {number} */ (this.cursor);
    let upTo = from;
    await this.owner.request('REQUEST_UPDATES', [from + 1], (piece) => {
      for (const { message } of piece) upTo = Math.max(upTo, message.updated);
      this.change(piece.map(({ chat, message }) => whole(chat, message)));
    });
    await this.#serial(async () => {
      await this.#drain();
      if (generation !== this.#generation) return;
      this.cursor = upTo;
      this.#isCaughtUp = true;
      await this.db.write([['meta', 'cursor', upTo]]);
    });
  }

  /**
   * Forgets all messages and begins at a time; what is to be sent stays.
   * @param {number} [cursor]
   */
  reset(cursor) {
    return this.#serial(async () => {
      this.#epoch += 1;
      this.cursor = cursor;
      this.windows.clear();
      await this.db.write([
        ['messages', ALL], ['meta', 'cursor', cursor], ['meta', 'windows', this.windows],
      ]);
      this.owner.onReset();
    });
  }

  /** Leaves the newest messages of each chat: what is older comes from the server again. */
  async prune() {
    for (const chat of [...this.windows.keys()]) {
      await this.#serial(async () => {
        const first = await this.db.firstOfNewest(chat, KEPT_MAX);
        const window = this.windows.get(chat);
        if (first === 0 || !window) return;
        if (first > window.from) this.windows.set(chat, { from: first, atStart: false });
        await this.db.write([['messages', [chat, 0, first]], ['meta', 'windows', this.windows]]);
      });
    }
  }

  /**
   * Forgets the messages of a chat that is gone.
   * @param {number} chat
   */
  forget(chat) {
    return this.#serial(async () => {
      await this.#drain();
      this.windows.delete(chat);
      await this.db.write([['messages', [chat]], ['meta', 'windows', this.windows]]);
    });
  }

  /**
   * The newest messages before an id, from storage as far as it goes, else from the server.
   * @param {number} chat
   * @param {number} before 0: the newest
   * @param {number} limit
   * @returns {Promise<{messages: WireMessage[], atStart: boolean}>}
   */
  async older(chat, before, limit) {
    const window = this.windows.get(chat);
    if (window && (before === 0 || before > window.from)) {
      const messages = await this.db.older(chat, window.from, before || Infinity, limit);
      const atStart = window.atStart && messages.length < limit;
      if (messages.length > 0 || atStart) return { messages, atStart };
    }
    const epoch = this.#epoch;
    const take = this.#take(chat);
    /** @type {WireMessage[]} */
    const page = [];
    await this.owner.request('REQUEST_CHAT_PAGE', [chat, before, limit], (messages) => {
      page.push(...messages);
      take(messages);
    });
    const atStart = page.length < limit;
    return this.#serial(async () => {
      await this.#drain();
      // A page from before a reset can lack what the new cursor claims to cover.
      if (epoch === this.#epoch) await this.#widen(chat, before, page[0]?.id, atStart);
      const stored = await this.db.getMany('messages', page.map(({ id }) => [chat, id]));
      return { messages: page.map((message, index) => stored[index] ?? message), atStart };
    });
  }

  /**
   * Makes a page part of the window that it is next to, or begins one.
   * @param {number} chat
   * @param {number} before
   * @param {number | undefined} first id of the page's first message
   * @param {boolean} atStart
   */
  async #widen(chat, before, first, atStart) {
    const window = this.windows.get(chat);
    const isNext = window ? before === window.from : before === 0;
    if (!isNext) return;
    this.windows.set(chat, { from: first ?? window?.from ?? 0, atStart });
    await this.db.write([['meta', 'windows', this.windows]]);
  }

  /**
   * The oldest messages after an id.
   * @param {number} chat
   * @param {number} after
   * @param {number} limit
   * @returns {Promise<{messages: WireMessage[], atEnd: boolean}>}
   */
  async newer(chat, after, limit) {
    const window = this.windows.get(chat);
    const messages = window && after >= window.from
      ? await this.db.newer(chat, after, limit)
      : await this.owner.request('REQUEST_CHAT_PAGE', [chat, after, limit, true]);
    return { messages, atEnd: messages.length < limit };
  }

  /**
   * @param {number} chat
   * @param {number} id
   * @returns {Promise<WireMessage | undefined>}
   */
  async message(chat, id) {
    const stored = await this.db.get('messages', [chat, id]);
    if (stored) return stored;
    const [message] = await this.owner.request('REQUEST_CHAT_PAGE', [chat, id + 1, 1]);
    return message?.id === id ? message : undefined;
  }

  // --- What is to be sent ---

  /** @param {number} chat */
  waiting(chat) {
    return this.outgoing.filter((entry) => entry.chat === chat);
  }

  /**
   * Queues a message; the same localId again changes nothing.
   * @param {{localId: string, chat: number, text: string, reply: number,
   *   files: import('./types.js').FileInfo[]}} message
   */
  async enqueue(message) {
    if (this.outgoing.some(({ localId }) => localId === message.localId)) return;
    /** @type {Outgoing} */
    const entry = { ...message, nonce: randomNonce(), time: Date.now() * 1000, state: 'sending' };
    this.outgoing.push(entry);
    await this.db.write([['outbox', entry.localId, entry]]);
    this.owner.onOutgoing(entry.chat, this.waiting(entry.chat));
    this.#sendAll(entry.chat);
  }

  /** @param {string} localId */
  async retry(localId) {
    const entry = this.outgoing.find((each) => each.localId === localId);
    if (!entry || entry.state !== 'failed') return;
    // A message that was replied to is gone: send it without.
    if (entry.code === 'no-such-message') entry.reply = 0;
    await this.#mark(entry, 'sending');
    this.#sendAll(entry.chat);
  }

  /** @param {string} localId */
  async discard(localId) {
    const entry = this.outgoing.find((each) => each.localId === localId);
    if (!entry || entry.state !== 'failed') return;
    this.outgoing = this.outgoing.filter((each) => each !== entry);
    await this.db.write([['outbox', localId]]);
    this.owner.onOutgoing(entry.chat, this.waiting(entry.chat));
  }

  /**
   * @param {Outgoing} entry
   * @param {'sending'|'failed'} state
   * @param {Failure} [failure]
   */
  async #mark(entry, state, failure) {
    entry.state = state;
    entry.reason = failure?.text;
    entry.code = failure?.code;
    await this.db.write([['outbox', entry.localId, entry]]);
    this.owner.onOutgoing(entry.chat, this.waiting(entry.chat));
  }

  /**
   * Sends what waits for a chat, one after the other: a refused one must not be overtaken.
   * @param {number} chat
   */
  async #sendAll(chat) {
    if (!this.#isReady || this.#sending.has(chat)) return;
    this.#sending.add(chat);
    const generation = this.#generation;
    try {
      while (generation === this.#generation) {
        const entry = this.outgoing.find((each) => each.chat === chat && each.state === 'sending');
        if (!entry) break;
        await this.#send(entry);
      }
    } finally {
      this.#sending.delete(chat);
    }
    // The connection came back while the last answer was waited for.
    if (generation !== this.#generation) this.#sendAll(chat);
  }

  /** @param {Outgoing} entry */
  async #send(entry) {
    const { chat, text, nonce, reply, files } = entry;
    try {
      const extras = encodeExtras(reply, files.map(({ id }) => id));
      await this.owner.request('SEND_CHAT_MSG', [chat, text, nonce, extras], ({ id, created }) => {
        this.#inbox.push({ sent: entry, change: whole(chat, {
          id, sender: this.me, created, updated: created, edited: false, deleted: false,
          text, reply, files, reactions: [],
        }) });
      });
      await this.#serial(() => this.#drain());
    } catch (error) {
      const failure = /** @type {Failure} */ (error);
      if (failure.code === 'offline') {
        // Whether it was stored is unknown: the nonce makes it safe to repeat.
        if (this.#isReady) await pause(1);
        return;
      }
      if (TEMPORARY.has(failure.code)) await pause(Math.min(failure.number || 1, RETRY_MAX_S));
      else await this.#mark(entry, 'failed', failure);
    }
  }
}

/** @param {number} seconds */
const pause = (seconds) => new Promise((resolve) => { setTimeout(resolve, seconds * 1000); });
