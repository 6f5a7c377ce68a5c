/**
 * The connection: a WebSocket that carries frames, reconnects by itself and detects a dead peer.
 * It sends HELLO; its owner logs in.
 */

import {
  FrameStream, Reader, TO_CLIENT, TO_SERVER, clientPurposeName, encodeRequest, frame, readAnswer,
  readFailure, readNotification,
} from './wire.js';

/** @typedef {import('./types.js').Failure} Failure */
/** @typedef {import('./wire.js').RequestName} RequestName */
/**
 * @template {RequestName} N
 * @typedef {ReturnType<(typeof TO_SERVER)[N][2]>} Answer
 */

/** Time limit for the answer to HEARTBEAT: it detects a socket without a close event. */
const HEARTBEAT_LIMIT_MS = 3_000;
/** Interval of HEARTBEAT: proxies close a WebSocket that is idle for 60 s. */
const HEARTBEAT_EVERY_MS = 25_000;
const CONNECT_LIMIT_MS = 10_000;
const BACKOFF_FIRST_MS = 200;
/** Longest pause between the first attempts: a server that restarts is soon back. */
const BACKOFF_SOON_MS = 3_000;
const SOON_ATTEMPTS = 10;
const BACKOFF_MAX_MS = 30_000;
const TASKS_MAX = 255;

/** @type {Failure} */
export const OFFLINE = { code: 'offline', text: '', number: 0 };

const HELLO_1_1 = [1, 1];

/**
 * @typedef {object} Owner
 * @property {(hello: Answer<'HELLO'>) => Promise<void>} onGreeted logs in, if there is a session
 * @property {(state: 'connecting'|'offline') => void} onLost
 * @property {(name: string, body: any) => void} onNotification
 * @property {() => void} onDeauth
 * @property {() => boolean} isWanted whether to reconnect after a loss
 */

/**
 * A request that waits for its answer.
 * @typedef {object} Pending
 * @property {RequestName} name
 * @property {Uint8Array} body
 * @property {Uint8Array[]} parts
 * @property {((answer: any) => void)} [onPart]
 * @property {(answer: any) => void} resolve
 * @property {(failure: Failure) => void} reject
 */

export class Link {
  /** @type {WebSocket | null} */
  #socket = null;
  #isGreeted = false;
  #isStopped = true;
  #stream = new FrameStream();
  /** @type {Map<number, Pending>} by task */
  #pending = new Map();
  /** @type {Pending[]} wait for a free task */
  #waiting = [];
  /** @type {Uint8Array[]} frames that are sent together in one message */
  #outgoing = [];
  #task = 0;
  #failures = 0;
  #startedAt = 0;
  #received = 0;
  #isChecking = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} the next attempt, or the attempt's limit */
  #timer;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #heartbeatTimer;

  /**
   * @param {string} url
   * @param {Owner} owner
   * @param {{isVisible?: () => boolean, WebSocket?: typeof WebSocket}} [environment]
   */
  constructor(url, owner, environment = {}) {
    this.url = url;
    this.owner = owner;
    this.isVisible = environment.isVisible ?? (() => true);
    this.WebSocket = environment.WebSocket ?? globalThis.WebSocket;
  }

  get isOnline() {
    return this.#isGreeted;
  }

  start() {
    this.#isStopped = false;
    this.#connect();
  }

  stop() {
    this.#isStopped = true;
    this.#drop();
    clearTimeout(this.#timer);
  }

  /** Checks the connection at once, after an event that often follows a dead connection. */
  wake() {
    if (this.#isStopped) return;
    if (this.#isGreeted) this.#checkAlive();
    else if (!this.#socket || Date.now() - this.#startedAt > HEARTBEAT_LIMIT_MS) {
      this.#failures = 0;
      this.#connect();
    }
  }

  /**
   * The browser reports that the network is gone: the socket is dead, though nothing closed it. A
   * server on this machine answers the next attempt at once.
   */
  unplugged() {
    if (!this.#isStopped && this.#socket) this.#lost();
  }

  /**
   * @template {RequestName} N
   * @param {N} name
   * @param {any[]} [values]
   * @param {(piece: Answer<N>) => void} [onPart] gets the entries of each PART; the promise then
   *   resolves to nothing
   * @returns {Promise<Answer<N>>} rejects with a Failure
   */
  request(name, values = [], onPart) {
    return new Promise((resolve, reject) => {
      if (!this.#isGreeted) return reject(OFFLINE);
      this.#enqueue({ name, body: encodeRequest(name, values), parts: [], onPart, resolve, reject });
    });
  }

  /** @param {Pending} request */
  #enqueue(request) {
    if (this.#pending.size >= TASKS_MAX) {
      this.#waiting.push(request);
      return;
    }
    do this.#task = (this.#task % TASKS_MAX) + 1;
    while (this.#pending.has(this.#task));
    this.#pending.set(this.#task, request);
    this.#send(TO_SERVER[request.name][0], this.#task, request.body);
  }

  /**
   * @param {number} purpose
   * @param {number} task
   * @param {Uint8Array} body
   */
  #send(purpose, task, body) {
    if (this.#outgoing.length === 0) queueMicrotask(() => this.#flush());
    this.#outgoing.push(frame(purpose, task, body));
  }

  #flush() {
    const frames = this.#outgoing;
    this.#outgoing = [];
    if (this.#socket?.readyState !== this.WebSocket.OPEN) return;
    this.#socket.send(join(frames));
  }

  #connect() {
    this.#drop();
    clearTimeout(this.#timer);
    this.#startedAt = Date.now();
    const socket = new this.WebSocket(this.url, 'purpose');
    this.#socket = socket;
    socket.binaryType = 'arraybuffer';
    socket.onopen = () => this.#greet(socket);
    socket.onmessage = ({ data }) => socket === this.#socket && this.#receive(data);
    socket.onclose = () => socket === this.#socket && this.#lost();
    this.#timer = setTimeout(() => this.#lost(), CONNECT_LIMIT_MS);
  }

  /** @param {WebSocket} socket */
  async #greet(socket) {
    try {
      const hello = await new Promise((resolve, reject) => {
        this.#enqueue({
          name: 'HELLO', body: encodeRequest('HELLO', HELLO_1_1), parts: [], resolve, reject,
        });
      });
      if (socket !== this.#socket) return;
      clearTimeout(this.#timer);
      this.#isGreeted = true;
      this.#scheduleHeartbeat();
      await this.owner.onGreeted(hello);
      if (socket === this.#socket) this.#failures = 0;
    } catch {
      if (socket === this.#socket) this.#lost();
    }
  }

  /** Closes the socket and fails waiting requests, without notifying the owner. */
  #drop() {
    const socket = this.#socket;
    this.#socket = null;
    this.#isGreeted = false;
    this.#isChecking = false;
    clearTimeout(this.#heartbeatTimer);
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
    }
    this.#stream = new FrameStream();
    this.#outgoing = [];
    const requests = [...this.#pending.values(), ...this.#waiting];
    this.#pending.clear();
    this.#waiting = [];
    for (const request of requests) request.reject(OFFLINE);
  }

  #lost() {
    const wasGreeted = this.#isGreeted;
    this.#drop();
    clearTimeout(this.#timer);
    if (this.#isStopped) return;
    this.owner.onLost(wasGreeted ? 'connecting' : 'offline');
    if (!this.owner.isWanted()) return;
    // Half of the pause is jitter, so that many browsers do not reconnect at the same moment.
    const pauseMs = backoffMs(this.#failures) * (0.5 + Math.random() / 2);
    this.#failures += 1;
    this.#timer = setTimeout(() => this.#connect(), pauseMs);
  }

  #scheduleHeartbeat() {
    clearTimeout(this.#heartbeatTimer);
    this.#heartbeatTimer = setTimeout(() => {
      if (this.isVisible()) this.#checkAlive();
      else this.#scheduleHeartbeat();
    }, HEARTBEAT_EVERY_MS);
  }

  #checkAlive() {
    if (this.#isChecking) return;
    const socket = this.#socket;
    this.#isChecking = true;
    this.#armLimit(socket);
    this.request('HEARTBEAT', [new Uint8Array(0)]).then(() => {
      if (socket !== this.#socket) return;
      this.#isChecking = false;
      this.#scheduleHeartbeat();
    }, () => undefined);
  }

  /**
   * Gives up the socket unless bytes move: the answer may wait behind a file on a slow network.
   * @param {WebSocket | null} socket
   */
  #armLimit(socket) {
    const [received, queued] = [this.#received, socket?.bufferedAmount ?? 0];
    clearTimeout(this.#heartbeatTimer);
    this.#heartbeatTimer = setTimeout(() => {
      if (socket !== this.#socket) return;
      const moves = this.#received > received || (socket?.bufferedAmount ?? 0) < queued;
      if (moves) this.#armLimit(socket);
      else this.#lost();
    }, HEARTBEAT_LIMIT_MS);
  }

  /** @param {ArrayBuffer | string} data */
  #receive(data) {
    try {
      if (typeof data === 'string') throw new TypeError('text on a connection of bytes');
      this.#received += data.byteLength;
      for (const { purpose, task, body } of this.#stream.push(new Uint8Array(data))) {
        this.#handle(clientPurposeName(purpose), task, body);
      }
    } catch (error) {
      console.error('the connection is closed:', error);
      this.#lost();
    }
  }

  /**
   * @param {string} name
   * @param {number} task
   * @param {Uint8Array} body
   */
  #handle(name, task, body) {
    if (name === 'ACCEPTED' || name === 'DECLINED' || name === 'PART') this.#answer(name, task, body);
    else if (name === 'HEARTBEAT') this.#send(TO_SERVER.ACCEPTED[0], task, body);
    else if (name === 'DISCONNECT') this.#lost();
    else if (name === 'DEAUTH') this.owner.onDeauth();
    else if (name !== '') this.owner.onNotification(name, readNotification(name, body));
  }

  /**
   * @param {string} name
   * @param {number} task
   * @param {Uint8Array} body
   */
  #answer(name, task, body) {
    const request = this.#pending.get(task);
    if (!request) return;
    if (name === 'DECLINED') {
      this.#settle(task);
      request.reject(readFailure(TO_CLIENT.DECLINED[1](new Reader(body))));
      return;
    }
    if (request.onPart) {
      if (body.length > 0) request.onPart(readAnswer(request.name, body));
    } else {
      request.parts.push(name === 'PART' ? body.slice() : body);
    }
    if (name === 'PART') return;
    this.#settle(task);
    request.resolve(request.onPart ? undefined : readAnswer(request.name, join(request.parts)));
  }

  /** @param {number} task */
  #settle(task) {
    this.#pending.delete(task);
    const next = this.#waiting.shift();
    if (next) this.#enqueue(next);
  }
}

/** @param {number} failures in a row before this one */
function backoffMs(failures) {
  const soon = Math.min(BACKOFF_FIRST_MS * 2 ** Math.min(failures, SOON_ATTEMPTS), BACKOFF_SOON_MS);
  return Math.min(soon * 2 ** Math.max(0, failures - SOON_ATTEMPTS), BACKOFF_MAX_MS);
}

/** @param {Uint8Array[]} parts */
function join(parts) {
  if (parts.length === 1) return parts[0];
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
