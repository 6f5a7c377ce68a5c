/**
 * Tabs of one browser: the leader runs the service, the others call it over a BroadcastChannel.
 *
 * The leader holds a lock (navigator.locks), which the browser passes on when the tab closes. A
 * leader that does not answer (a frozen tab) is deposed. Without locks every tab is a leader, with
 * its own slot.
 */

/** @typedef {import('./types.js').Failure} Failure */
/** @typedef {{onProgress?: (done: number) => void, signal?: AbortSignal}} CallOptions */
/**
 * @typedef {object} Service
 * @property {(method: string, args: any[], options: CallOptions) => Promise<any>} call
 * @property {() => Promise<void>} start
 * @property {() => void} stop
 */

/**
 * A call that waits for its answer.
 * @typedef {object} Call
 * @property {string} method
 * @property {any[]} args
 * @property {CallOptions} options
 * @property {(value: any) => void} resolve
 * @property {(failure: Failure) => void} reject
 */

/** Time limit for an answer of the leader; a live one answers much faster. */
const ANSWER_LIMIT_MS = 3_000;

/** @type {Failure} */
const ABORTED = { code: 'aborted', text: '', number: 0 };

/**
 * Converts an error to a Failure: code, message, and the number in it.
 * @param {any} error
 * @returns {Failure}
 */
function failureOf(error) {
  if (typeof error?.code === 'string') return { code: error.code, text: error.text ?? '', number: error.number ?? 0 };
  console.error(error);
  return { code: 'internal', text: String(error?.message ?? error), number: 0 };
}

export class Tabs {
  isLeader = false;
  /** @type {Service | null} */
  #service = null;
  /** @type {Map<number, Call>} */
  #calls = new Map();
  /** @type {Map<string, AbortController>} calls of other tabs in progress here */
  #running = new Map();
  #lastCall = 0;
  #id = crypto.getRandomValues(new Uint32Array(2)).join('-');
  #heardAt = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #watch;
  /** @type {(() => void) | undefined} gives the lock back */
  #release;

  /**
   * @param {object} options
   * @param {string} options.name of the lock and the channel
   * @param {(emit: (event: any) => void) => Service} options.makeService
   * @param {(event: any) => void} options.onEvent
   * @param {() => void} options.onLeader there is a leader, perhaps a new one
   * @param {LockManager} [options.locks] none: every tab leads
   * @param {BroadcastChannel} [options.channel]
   */
  constructor({ name, makeService, onEvent, onLeader, locks, channel }) {
    this.name = name;
    this.makeService = makeService;
    this.onEvent = onEvent;
    this.onLeader = onLeader;
    this.locks = locks;
    this.channel = locks ? channel ?? new BroadcastChannel(name) : null;
    if (this.channel) this.channel.onmessage = ({ data }) => this.#receive(data);
  }

  async start() {
    if (!this.locks) return this.#lead();
    this.#queue();
    this.#post({ kind: 'hello' });
    this.#arm();
  }

  /**
   * Requests the lock; this tab leads once it has it.
   * @param {boolean} [steal]
   */
  #queue(steal = false) {
    const locks = /** @type {LockManager} */ (this.locks);
    locks.request(this.name, steal ? { steal } : {}, () => {
      this.#lead();
      return new Promise((resolve) => { this.#release = () => resolve(undefined); });
    }).catch(({ name }) => {
      // Another tab stole the lock, because this one did not answer. Where cookies are blocked,
      // locks are denied, as is all storage: each tab leads.
      if (name === 'SecurityError') {
        this.channel?.close();
        this.channel = null;
        this.locks = undefined;
        return this.#lead();
      }
      this.#depose();
      this.#queue();
    });
  }

  #lead() {
    if (this.isLeader) return;
    this.isLeader = true;
    clearTimeout(this.#watch);
    const service = this.makeService((event) => {
      if (this.#service !== service) return;
      this.#post({ kind: 'event', event });
      this.onEvent(event);
    });
    this.#service = service;
    const started = service.start();
    this.#post({ kind: 'leader' });
    this.onLeader();
    started.catch((error) => console.error(error));
    this.#again();
  }

  #depose() {
    this.isLeader = false;
    this.#service?.stop();
    this.#service = null;
    this.#release = undefined;
    for (const controller of this.#running.values()) controller.abort();
    this.#running.clear();
  }

  /** Stops taking part, e.g. before the page goes to the back-forward cache. */
  stop() {
    const release = this.#release;
    this.#depose();
    release?.();
    clearTimeout(this.#watch);
  }

  /**
   * Calls a method of the service, wherever it runs.
   * @param {string} method
   * @param {any[]} [args]
   * @param {CallOptions} [options]
   * @returns {Promise<any>} rejects with a Failure
   */
  call(method, args = [], options = {}) {
    return new Promise((resolve, reject) => {
      const id = (this.#lastCall += 1);
      this.#calls.set(id, { method, args, options, resolve, reject });
      options.signal?.addEventListener('abort', () => {
        this.#post({ kind: 'abort', from: this.#id, id });
        this.#settle(id, undefined, ABORTED);
      });
      this.#dispatch(id);
    });
  }

  /** @param {number} id */
  #dispatch(id) {
    const call = this.#calls.get(id);
    if (!call) return;
    if (this.#service) this.#runOwn(id, call);
    else {
      this.#post({ kind: 'call', from: this.#id, id, method: call.method, args: call.args });
      this.#arm();
    }
  }

  /** Repeats waiting calls with a new leader. */
  #again() {
    for (const id of [...this.#calls.keys()]) this.#dispatch(id);
  }

  /**
   * @param {number} id
   * @param {{method: string, args: any[], options: CallOptions}} call
   */
  async #runOwn(id, { method, args, options }) {
    const service = this.#service;
    try {
      const value = await service?.call(method, args, options);
      this.#settle(id, value);
    } catch (error) {
      // If this tab was deposed meanwhile, the new leader answers.
      if (service === this.#service) this.#settle(id, undefined, failureOf(error));
    }
  }

  /**
   * @param {number} id
   * @param {any} value
   * @param {Failure} [failure]
   */
  #settle(id, value, failure) {
    const call = this.#calls.get(id);
    if (!call) return;
    this.#calls.delete(id);
    if (failure) call.reject(failure);
    else call.resolve(value);
  }

  /** @param {any} message */
  #post(message) {
    try {
      this.channel?.postMessage(message);
    } catch (error) {
      console.error('not posted to other tabs:', error);
    }
  }

  /** @param {any} message */
  #receive(message) {
    if (this.isLeader) this.#receiveAsLeader(message);
    else this.#receiveAsFollower(message);
  }

  /** @param {any} message */
  #receiveAsLeader(message) {
    if (message.kind === 'hello') this.#post({ kind: 'leader', to: message.from });
    else if (message.kind === 'ping') this.#post({ kind: 'pong' });
    else if (message.kind === 'call') this.#runForeign(message);
    else if (message.kind === 'abort') this.#running.get(`${message.from} ${message.id}`)?.abort();
  }

  /** @param {{from: string, id: number, method: string, args: any[]}} call */
  async #runForeign({ from, id, method, args }) {
    const key = `${from} ${id}`;
    if (this.#running.has(key)) return;
    const controller = new AbortController();
    this.#running.set(key, controller);
    const options = {
      signal: controller.signal,
      onProgress: (/** @type {number} */ done) => this.#post({ kind: 'progress', to: from, id, done }),
    };
    const service = this.#service;
    try {
      const value = await service?.call(method, args, options);
      this.#post({ kind: 'answer', to: from, id, value });
    } catch (error) {
      if (service === this.#service) this.#post({ kind: 'answer', to: from, id, failure: failureOf(error) });
    } finally {
      this.#running.delete(key);
    }
  }

  /** @param {any} message */
  #receiveAsFollower(message) {
    const isFromLeader = ['leader', 'pong', 'event', 'progress', 'answer'].includes(message.kind);
    if (isFromLeader) this.#heardAt = Date.now();
    if (message.kind === 'event') this.onEvent(message.event);
    else if (message.kind === 'leader') {
      this.onLeader();
      this.#again();
    } else if (message.to === this.#id && message.kind === 'progress') {
      this.#calls.get(message.id)?.options.onProgress?.(message.done);
    } else if (message.to === this.#id && message.kind === 'answer') {
      this.#settle(message.id, message.value, message.failure);
    }
  }

  /** Checks that the leader is alive while a call waits for its answer. */
  #arm() {
    clearTimeout(this.#watch);
    const askedAt = Date.now();
    this.#post({ kind: 'ping' });
    this.#watch = setTimeout(() => {
      if (this.isLeader) return;
      if (this.#heardAt < askedAt) this.#queue(true);
      else if (this.#calls.size > 0) this.#arm();
    }, ANSWER_LIMIT_MS);
  }
}
