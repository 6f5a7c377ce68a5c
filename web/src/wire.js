/**
 * Codec of the protocol (docs/protocol.md): the table of purposes, frames, requests, answers.
 *
 * A request is a list of values; the table has their types. An answer becomes a plain object.
 * 64-bit ids and times are Numbers outside this file; a nonce is a BigInt.
 */

/** Longest body accepted from the server, in bytes: far above what it sends. */
const BODY_MAX = 2 ** 21;
const HEADER_BYTES = 6;

/** A violation of the protocol: the stream cannot be trusted any more. */
export class WireError extends Error {}

const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
const encoder = new TextEncoder();

/** Reads values from a body. */
export class Reader {
  /** @param {Uint8Array} bytes */
  constructor(bytes) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.at = 0;
  }

  get isEmpty() {
    return this.at >= this.bytes.length;
  }

  /** @param {number} count */
  #take(count) {
    const at = this.at;
    if (at + count > this.bytes.length) throw new WireError('body too short');
    this.at += count;
    return at;
  }

  u8() {
    return this.view.getUint8(this.#take(1));
  }

  u16() {
    return this.view.getUint16(this.#take(2), true);
  }

  u32() {
    return this.view.getUint32(this.#take(4), true);
  }

  u64() {
    const at = this.#take(8);
    const high = this.view.getUint32(at + 4, true);
    if (high >= 2 ** 21) throw new WireError('number over 2^53');
    return high * 2 ** 32 + this.view.getUint32(at, true);
  }

  bool() {
    return this.u8() !== 0;
  }

  str() {
    const end = this.bytes.indexOf(0, this.at);
    if (end < 0) throw new WireError('text without end');
    const text = decoder.decode(this.bytes.subarray(this.at, end));
    this.at = end + 1;
    return text;
  }

  /** @param {number} count */
  raw(count) {
    const at = this.#take(count);
    return this.bytes.subarray(at, at + count);
  }

  rest() {
    return this.raw(this.bytes.length - this.at);
  }

  /**
   * @template T
   * @param {(reader: Reader) => T} read
   * @returns {T[]} all up to the end
   */
  pack(read) {
    const all = [];
    while (!this.isEmpty) all.push(read(this));
    return all;
  }
}

/** Encodes values into one buffer. */
export class Writer {
  constructor() {
    this.bytes = new Uint8Array(64);
    this.view = new DataView(this.bytes.buffer);
    this.length = 0;
  }

  /** @param {number} count */
  #grow(count) {
    const at = this.length;
    this.length += count;
    if (this.length > this.bytes.length) {
      const bytes = new Uint8Array(Math.max(this.length, 2 * this.bytes.length));
      bytes.set(this.bytes);
      this.bytes = bytes;
      this.view = new DataView(bytes.buffer);
    }
    return at;
  }

  /** @param {number} value */
  u8(value) {
    const at = this.#grow(1);
    this.view.setUint8(at, value);
  }

  /** @param {number} value */
  u16(value) {
    const at = this.#grow(2);
    this.view.setUint16(at, value, true);
  }

  /** @param {number} value */
  u32(value) {
    const at = this.#grow(4);
    this.view.setUint32(at, value, true);
  }

  /** @param {number|bigint} value */
  u64(value) {
    const at = this.#grow(8);
    this.view.setBigUint64(at, BigInt(value), true);
  }

  /** @param {boolean} value */
  bool(value) {
    this.u8(value ? 1 : 0);
  }

  /** @param {string} text in which a NUL is left out: it would end the text */
  str(text) {
    this.raw(encoder.encode(text.includes('\0') ? text.replaceAll('\0', '') : text));
    this.u8(0);
  }

  /** @param {Uint8Array} bytes */
  raw(bytes) {
    const at = this.#grow(bytes.length);
    this.bytes.set(bytes, at);
  }

  done() {
    return this.bytes.subarray(0, this.length);
  }
}

/**
 * @typedef {{id: number, sender: number, created: number, updated: number, edited: boolean,
 *   deleted: boolean, text: string, reply: number, files: import('./types.js').FileInfo[],
 *   reactions: {emoji: string, count: number, shown: number[]}[]}} WireMessage
 */

/** Whether structures have the fields of API 1.1, by the version that HELLO agreed on. */
let isLong = true;

/** @param {{major: number, minor: number}} api */
export function setApi(api) {
  isLong = api.major > 1 || (api.major === 1 && api.minor >= 1);
}

const EXTRA = { REPLY: 1, FILE: 2, REACTIONS: 3, ATTACH: 4 };

/**
 * @param {Reader} r
 * @returns {WireMessage}
 */
export function readMessage(r) {
  const [id, sender, created, updated, status] = [r.u64(), r.u32(), r.u64(), r.u64(), r.u8()];
  /** @type {WireMessage} */
  const message = {
    id, sender, created, updated,
    edited: (status & 1) !== 0,
    deleted: (status & 2) !== 0,
    text: r.str(),
    reply: 0, files: [], reactions: [],
  };
  if (!isLong) return message;
  const extras = new Reader(r.raw(r.u16()));
  while (!extras.isEmpty) {
    const kind = extras.u8();
    const extra = new Reader(extras.raw(extras.u16()));
    if (kind === EXTRA.REPLY) message.reply = extra.u64();
    else if (kind === EXTRA.FILE) message.files.push(readFile(extra));
    else if (kind === EXTRA.REACTIONS) message.reactions = extra.pack(readReaction);
  }
  return message;
}

/** @param {Reader} r */
function readFile(r) {
  return {
    id: r.u64(), size: r.u64(), width: r.u16(), height: r.u16(), type: r.str(), name: r.str(),
  };
}

/** @param {Reader} r */
function readReaction(r) {
  const [emoji, count, shown] = [r.str(), r.u16(), r.u8()];
  return { emoji, count, shown: Array.from({ length: shown }, () => r.u32()) };
}

/** @param {Reader} r */
const readChatMessage = (r) => ({ chat: r.u32(), message: readMessage(r) });

/**
 * @typedef {{id: number, kind: 'group'|'direct', hasPassword: boolean, isMember: boolean,
 *   isAdmin: boolean, isClosed: boolean, members: number, lastTime: number, seen: number,
 *   unread: number, name: string, topic: string, notify: 0|1|2}} WireChat
 */

/**
 * @param {Reader} r
 * @returns {WireChat}
 */
export function readChat(r) {
  const [id, kind, flags] = [r.u32(), r.u8(), r.u8()];
  return {
    id,
    kind: kind === 1 ? 'direct' : 'group',
    hasPassword: (flags & 1) !== 0,
    isMember: (flags & 2) !== 0,
    isAdmin: (flags & 4) !== 0,
    isClosed: (flags & 8) !== 0,
    members: r.u32(), lastTime: r.u64(), seen: r.u64(), unread: r.u32(),
    name: r.str(), topic: r.str(),
    notify: /** @type {0|1|2} */ (isLong ? r.u8() : 0),
  };
}

/** @param {Reader} r */
function readUser(r) {
  const [id, flags, created, name] = [r.u32(), r.u8(), r.u64(), r.str()];
  return {
    id, name, created,
    operator: (flags & 1) !== 0,
    online: (flags & 2) !== 0,
    disabled: (flags & 4) !== 0,
    bot: (flags & 8) !== 0,
  };
}

/** @param {Reader} r */
function readMember(r) {
  const [id, flags, seen, name] = [r.u32(), r.u8(), r.u64(), r.str()];
  return {
    id, name, seen,
    admin: (flags & 1) !== 0,
    online: (flags & 2) !== 0,
    banned: (flags & 4) !== 0,
  };
}

/** @param {Reader} r */
function readSession(r) {
  const [id, flags] = [r.u32(), r.u8()];
  return {
    id, current: (flags & 1) !== 0, attached: (flags & 2) !== 0,
    created: r.u64(), used: r.u64(), address: r.str(),
  };
}

/** @param {Reader} r */
const readInvite = (r) => ({
  hint: r.str(), registers: r.bool(), usesLeft: r.u16(), expires: r.u64(), created: r.u64(),
  creator: r.u32(), chat: r.u32(),
});

const REGISTRATION = /** @type {const} */ (['closed', 'invite', 'open']);

/** @param {Reader} r */
function readHello(r) {
  const api = { major: r.u8(), minor: r.u8() };
  setApi(api);
  const hello = { api, maxBody: r.u32(), maxContent: r.u32(), version: r.str() };
  return isLong
    ? { ...hello, maxFile: r.u64(), pushKey: r.str(), registration: REGISTRATION[r.u8()] ?? 'closed' }
    : { ...hello, maxFile: 0, pushKey: '', registration: /** @type {const} */ ('open') };
}

const nothing = () => undefined;
/** @param {Reader} r */
const u32 = (r) => r.u32();
/** @param {Reader} r */
const u64 = (r) => r.u64();
/** @param {Reader} r */
const str = (r) => r.str();
/** @param {Reader} r */
const bool = (r) => r.bool();
/**
 * @template T
 * @param {(reader: Reader) => T} read
 */
const pack = (read) => (/** @type {Reader} */ r) => r.pack(read);
/** @param {Reader} r */
const readLogin = (r) => ({
  session: r.u32(), hash: r.str(), user: r.u32(), operator: isLong && (r.u8() & 1) !== 0,
});
/** @param {Reader} r */
const readRestored = (r) => ({ user: r.u32(), operator: isLong && (r.u8() & 1) !== 0 });

/**
 * The table, to the server: byte, types of the request's values (`?`: optional at the end), and the
 * decoder of the answer.
 * @satisfies {Record<string, [number, string, (r: Reader) => any]>}
 */
export const TO_SERVER = /** @type {const} */ ({
  ACCEPTED: [0x00, 'raw', nothing],
  DECLINED: [0x01, 'str', nothing],
  HEARTBEAT: [0x02, 'raw', nothing],
  DISCONNECT: [0x03, '', nothing],
  PART: [0x04, 'raw', nothing],
  HELLO: [0x20, 'u8 u8', readHello],
  LOGIN: [0x21, 'str str', readLogin],
  LOGOFF: [0x22, '', nothing],
  RESTORE_SESSION: [0x23, 'u32 str', readRestored],
  GET_USER_ID: [0x24, 'str', u32],
  GET_CHAT_ID: [0x25, 'str', u32],
  CHAT_REQ_PASS: [0x26, 'u32', bool],
  JOIN_CHAT: [0x27, 'u32 str?', nothing],
  SEND_CHAT_MSG: [0x28, 'u32 str u64 raw?', (/** @type {Reader} */ r) => ({ id: r.u64(), created: r.u64() })],
  REQUEST_CHAT_MSG: [0x29, 'u32 u64 u64?', pack(readMessage)],
  MARK_SEEN: [0x2a, 'u32 u64', nothing],
  REGISTER_USER: [0x30, 'str str str?', u32],
  CHANGE_PASSWORD: [0x31, 'str str', nothing],
  GET_USER: [0x32, 'u32', readUser],
  GET_SESSIONS: [0x33, '', pack(readSession)],
  END_SESSION: [0x34, 'u32', nothing],
  SET_PASSWORD: [0x35, 'str str str', u32],
  RESET_PASSWORD: [0x36, 'u32', (/** @type {Reader} */ r) => ({ code: r.str(), expires: r.u64() })],
  FIND_USERS: [0x37, 'str u16', pack(readUser)],
  CREATE_CHAT: [0x38, 'str str?', u32],
  LEAVE_CHAT: [0x39, 'u32', nothing],
  START_CHAT: [0x3a, 'u32', u32],
  DELETE_CHAT: [0x3b, 'u32', nothing],
  RENAME_CHAT: [0x3c, 'u32 str', nothing],
  SET_CHAT_TITLE: [0x3d, 'u32 str', nothing],
  SET_CHAT_PASSWORD: [0x3e, 'u32 str?', nothing],
  SET_CHAT_ADMIN: [0x3f, 'u32 u32 bool', nothing],
  SET_CHAT_BAN: [0x40, 'u32 u32 bool', nothing],
  GET_CHAT: [0x41, 'u32', readChat],
  GET_MY_CHATS: [0x42, '', pack(readChat)],
  GET_MEMBERS: [0x43, 'u32', pack(readMember)],
  FIND_CHATS: [0x44, 'str u16', pack(readChat)],
  SET_USER_DISABLED: [0x45, 'u32 bool', nothing],
  ADD_MEMBER: [0x46, 'u32 u32', nothing],
  SET_CHAT_CLOSED: [0x47, 'u32 bool', nothing],
  EDIT_MSG: [0x48, 'u32 u64 str', u64],
  DELETE_MSG: [0x49, 'u32 u64', u64],
  REQUEST_CHAT_PAGE: [0x4a, 'u32 u64 u16 bool?', pack(readMessage)],
  SEARCH_MSG: [0x4b, 'u32 u16 str', pack(readChatMessage)],
  REQUEST_UPDATES: [0x4c, 'u64', pack(readChatMessage)],
  TYPING: [0x4d, 'u32', nothing],
  REACT: [0x4e, 'u32 u64 bool str', u64],
  GET_REACTIONS: [0x4f, 'u32 u64', pack((r) => ({ user: r.u32(), emoji: r.str() }))],
  SET_CHAT_NOTIFY: [0x50, 'u32 u8', nothing],
  SUBSCRIBE_PUSH: [0x51, 'str raw?', nothing],
  CREATE_INVITE: [0x52, 'bool u16 u16 u32', str],
  GET_INVITES: [0x53, 'u32', pack(readInvite)],
  END_INVITE: [0x54, 'str', nothing],
  USE_INVITE: [0x55, 'str', u32],
  BEGIN_FILE: [0x58, 'u32 u64 u16 u16 str str', u64],
  PUT_FILE: [0x59, 'u64 u64 raw', u64],
  GET_FILE: [0x5a, 'u64 u64 u32', (/** @type {Reader} */ r) => r.rest()],
  END_FILE: [0x5b, 'u64', nothing],
});

/** @typedef {keyof typeof TO_SERVER} RequestName */

/**
 * The table, to a client: byte, and the decoder of the notification.
 * @satisfies {Record<string, [number, (r: Reader) => any]>}
 */
export const TO_CLIENT = /** @type {const} */ ({
  ACCEPTED: [0x00, nothing],
  DECLINED: [0x01, str],
  HEARTBEAT: [0x02, nothing],
  DISCONNECT: [0x03, nothing],
  PART: [0x04, nothing],
  MSG_NOTIFY: [0x20, (/** @type {Reader} */ r) => ({ chat: r.u32(), messages: r.pack(readMessage) })],
  DEAUTH: [0x22, nothing],
  CHAT_NOTIFY: [0x30, readChat],
  CHAT_GONE: [0x31, (/** @type {Reader} */ r) => ({ chat: r.u32() })],
  MEMBER_NOTIFY: [0x32, (/** @type {Reader} */ r) => ({ chat: r.u32(), user: r.u32(), event: r.u8(), name: r.str() })],
  SEEN_NOTIFY: [0x33, (/** @type {Reader} */ r) => ({ chat: r.u32(), user: r.u32(), time: r.u64() })],
  TYPING_NOTIFY: [0x34, (/** @type {Reader} */ r) => ({ chat: r.u32(), user: r.u32() })],
  PRESENCE_NOTIFY: [0x35, (/** @type {Reader} */ r) => ({ user: r.u32(), online: r.bool() })],
  REACTION_NOTIFY: [0x36, (/** @type {Reader} */ r) => ({
    chat: r.u32(), id: r.u64(), updated: r.u64(), user: r.u32(), on: r.bool(), emoji: r.str(),
  })],
});

/** @type {Map<number, string>} */
const NOTIFICATION_NAMES = new Map(
  Object.entries(TO_CLIENT).map(([name, [byte]]) => [byte, name]),
);

/**
 * @param {number} purpose
 * @returns {string} empty when it is unknown
 */
export const clientPurposeName = (purpose) => NOTIFICATION_NAMES.get(purpose) ?? '';

/**
 * @param {string} name a key of TO_CLIENT
 * @param {Uint8Array} body
 * @returns {any}
 */
export const readNotification = (name, body) =>
  TO_CLIENT[/** @type {keyof typeof TO_CLIENT} */ (name)][1](new Reader(body));

/**
 * @param {number} purpose
 * @param {number} task
 * @param {Uint8Array} body
 * @returns {Uint8Array}
 */
export function frame(purpose, task, body) {
  const bytes = new Uint8Array(HEADER_BYTES + body.length);
  new DataView(bytes.buffer).setUint32(0, body.length, true);
  bytes[4] = purpose;
  bytes[5] = task;
  bytes.set(body, HEADER_BYTES);
  return bytes;
}

/**
 * @param {RequestName} name
 * @param {any[]} values
 * @returns {Uint8Array} the body
 */
export function encodeRequest(name, values) {
  const writer = new Writer();
  const fields = TO_SERVER[name][1].split(' ').filter(Boolean);
  for (const [index, field] of fields.entries()) {
    if (values[index] === undefined && field.endsWith('?')) break;
    const type = /** @type {'u8'|'u16'|'u32'|'u64'|'str'|'bool'|'raw'} */ (field.replace('?', ''));
    writer[type](/** @type {never} */ (values[index]));
  }
  return writer.done();
}

/**
 * @template {RequestName} N
 * @param {N} name
 * @param {Uint8Array} body
 * @returns {ReturnType<(typeof TO_SERVER)[N][2]>}
 */
export function readAnswer(name, body) {
  return /** @type {any} */ (TO_SERVER[name][2](new Reader(body)));
}

/**
 * The extras of SEND_CHAT_MSG, after the nonce.
 * @param {number} reply
 * @param {number[]} fileIds
 * @returns {Uint8Array | undefined} undefined: nothing
 */
export function encodeExtras(reply, fileIds) {
  const writer = new Writer();
  const entries = fileIds.map((id) => [EXTRA.ATTACH, id]);
  if (reply) entries.unshift([EXTRA.REPLY, reply]);
  for (const [kind, id] of entries) {
    writer.u8(kind);
    writer.u16(8);
    writer.u64(id);
  }
  return entries.length > 0 ? writer.done() : undefined;
}

/** Splits a byte stream, which may be cut anywhere, into frames. */
export class FrameStream {
  #kept = new Uint8Array(0);

  /**
   * @param {Uint8Array} bytes
   * @returns {{purpose: number, task: number, body: Uint8Array}[]} the frames that are whole now
   */
  push(bytes) {
    let data = bytes;
    if (this.#kept.length > 0) {
      data = new Uint8Array(this.#kept.length + bytes.length);
      data.set(this.#kept);
      data.set(bytes, this.#kept.length);
    }
    const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
    const frames = [];
    let at = 0;
    while (data.length - at >= HEADER_BYTES) {
      const length = view.getUint32(at, true);
      if (length > BODY_MAX) throw new WireError(`a body of ${length} bytes`);
      const end = at + HEADER_BYTES + length;
      if (end > data.length) break;
      frames.push({
        purpose: data[at + 4], task: data[at + 5], body: data.subarray(at + HEADER_BYTES, end),
      });
      at = end;
    }
    this.#kept = data.slice(at);
    return frames;
  }
}

/**
 * @typedef {import('./types.js').Failure} Failure
 */

/**
 * @param {string} words of a DECLINED: `code: words`
 * @returns {Failure}
 */
export function readFailure(words) {
  const [, code, text] = /^([a-z-]+): ?([^]*)$/.exec(words) ?? ['', 'declined', words];
  return { code, text, number: Number(/\d+/.exec(text)?.[0] ?? 0) };
}
