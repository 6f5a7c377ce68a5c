/**
 * The engine: the connection and the session, once for all tabs.
 *
 * It runs in the leader tab (tabs.js). Tabs call it and get events: `state` (changed parts of the
 * state), `users`, `changes` (of messages), `outgoing`, `reset` and `notice`. The data of the user
 * is in user.js, which is loaded after the login. Must not touch the page.
 */

import { Database } from './db.js';
import { Link, OFFLINE } from './link.js';

/** @typedef {import('./types.js').Failure} Failure */
/** @typedef {import('./types.js').Me} Me */
/** @typedef {import('./tabs.js').CallOptions} CallOptions */
/** @typedef {import('./user.js').UserData} UserData */
/** @typedef {{id: number, hash: string, user: Me}} Session */

/** Time that a request waits for a connection in progress. */
const CONNECT_LIMIT_MS = 6_000;
const LOGOFF_LIMIT_MS = 2_000;
/** A tab counts as visible for this long; visible tabs report themselves more often. */
const VISIBLE_MS = 45_000;
/** A session that is taken over again within this time is in use elsewhere. */
const TAKEN_OVER_MS = 10_000;

/** @param {number} ms */
const pause = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

export class Engine {
  /** @type {Database | undefined} holds the session */
  #slotDb;
  /** @type {Session | null} */
  #session = null;
  /** @type {UserData | null} */
  #user = null;
  #isAuthorized = false;
  #wasGreeted = false;
  /** @type {(() => void)[]} wait for the session */
  #whenOnline = [];
  /** @type {(() => void)[]} wait for a greeted connection, or for the end of the attempt */
  #whenGreeted = [];
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
    me: /** @type {Me|null} */ (null),
    server: /** @type {import('./types.js').Server|null} */ (null),
    chats: /** @type {import('./types.js').Chat[]} */ ([]),
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
      onNotification: (name, body) => this.#user?.onNotification(name, body),
      onDeauth: () => this.#onDeauth(),
      // The server closes a connection without a login; the next login attempt opens one.
      isWanted: () => this.#session !== null || !this.#wasGreeted,
    }, { isVisible: () => Date.now() - this.#visibleAt < VISIBLE_MS });
  }

  async start() {
    this.#slotDb = await this.#openDb(this.slot);
    const [session, server] = await this.#slotDb.getMany('meta', ['session', 'server']);
    this.#session = session ?? null;
    if (server) this.#set({ server });
    if (this.#session) await this.#openUser(this.#session);
    else this.#set({ auth: 'out' });
    this.link.start();
  }

  stop() {
    this.link.stop();
    this.#user?.close();
    this.#slotDb?.close();
  }

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
      if ('chats' in changed) changed.chats = this.state.chats = this.#user?.chatList() ?? [];
      this.emit({ type: 'state', state: changed });
    });
  }

  // --- Storage and session ---

  /** The name of the cache with the images of the user. */
  get imageCache() {
    return `images ${this.slot} ${this.#session?.user.id ?? 0}`;
  }

  /** @param {string} name */
  async #openDb(name) {
    const db = new Database(name, (isEmpty) => {
      this.emit({ type: 'notice', key: 'noStorage' });
      if (isEmpty) this.#user?.onStorageLost();
    });
    return db.open();
  }

  /** @param {Session} session */
  async #openUser({ user: me }) {
    const [db, { UserData }] = await Promise.all([
      this.#openDb(`${this.slot}-${me.id}-${me.name.toLowerCase()}`), import('./user.js'),
    ]);
    /** @type {UserData} */
    const user = new UserData(me, db, {
      emit: (event) => this.emit(event),
      changed: () => this.#set({ chats: [] }),
      request: (...args) => (this.#isAuthorized && user === this.#user
        ? this.link.request(...args) : Promise.reject(OFFLINE)),
    });
    await user.load();
    this.#user = user;
    this.emit({ type: 'users', users: user.users(), isAll: true });
    this.#set({ auth: 'in', me, why: '', login: '', chats: [] });
  }

  /** @param {import('./link.js').Answer<'HELLO'>} hello */
  async #onGreeted(hello) {
    const server = { ...hello, name: location.host };
    this.#wasGreeted = true;
    this.#set({ server });
    this.#slotDb?.write([['meta', 'server', server]]);
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
        if (failure.code === 'bad-session') return this.#ended('ended', true);
        if (failure.code !== 'rate-limited') throw error;
        await pause(1000 * (failure.number || 1));
      }
    }
  }

  /** @param {boolean} operator */
  async #authorized(operator) {
    const { me, server } = this.state;
    this.#isAuthorized = true;
    if (me && operator !== me.operator) this.#set({ me: { ...me, operator } });
    if (me) this.#readName(me.id).catch(() => undefined);
    await this.#user?.online(server?.api.minor ?? 0, () => {
      this.#set({ connection: 'online' });
      for (const resolve of this.#whenOnline.splice(0)) resolve();
    });
  }

  /**
   * An operator can rename a user.
   * @param {number} id
   */
  async #readName(id) {
    const { name } = await this.link.request('GET_USER', [id]);
    const { me } = this.state;
    if (me?.id !== id || me.name === name) return;
    this.#user?.rename(name);
    this.#set({ me: { ...me, name }, chats: [] });
  }

  /** @param {'connecting'|'offline'} state */
  #onLost(state) {
    this.#isAuthorized = false;
    this.#user?.lost();
    for (const resolve of this.#whenGreeted.splice(0)) resolve();
    if (!this.#session && state === 'connecting') return;
    // While attempts fail the state stays the same, so that the page does not flicker.
    if (this.state.connection !== 'offline') this.#set({ connection: state });
  }

  async #onDeauth() {
    this.#isAuthorized = false;
    this.#user?.lost();
    if (!this.#session) return;
    const isAgain = Date.now() - this.#takenOverAt < TAKEN_OVER_MS;
    this.#takenOverAt = Date.now();
    if (isAgain) await this.#ended('ended', true);
    else await this.#restore().catch(() => undefined);
  }

  /**
   * The session has ended.
   * @param {string} why
   * @param {boolean} keepsUnsent keep drafts and unsent messages for the same user
   */
  async #ended(why, keepsUnsent) {
    const [user, images] = [this.#user, this.imageCache];
    // Where storage is blocked, even the look at it may throw.
    Promise.resolve().then(() => caches.delete(images)).catch(() => undefined);
    this.#user = this.#session = null;
    this.#isAuthorized = false;
    const connection = this.link.isOnline ? 'online' : this.state.connection;
    this.emit({ type: 'users', users: [], isAll: true });
    this.#set({ auth: 'out', me: null, why, login: why ? user?.me.name ?? '' : '', chats: [], connection });
    await this.#slotDb?.write([['meta', 'session']]);
    await user?.end(keepsUnsent);
  }

  /**
   * @param {import('./link.js').Answer<'LOGIN'>} answer
   * @param {string} login
   */
  async #loggedIn({ session, hash, user, operator }, login) {
    this.#takenOverAt = 0;
    // The name in its stored form, not as it was typed.
    const name = await this.link.request('GET_USER', [user]).then((known) => known.name, () => login);
    this.#session = { id: session, hash, user: { id: user, name, operator } };
    await this.#slotDb?.write([['meta', 'session', this.#session]]);
    await this.#openUser(this.#session);
    await this.#authorized(operator);
  }

  async #greeted() {
    if (this.link.isOnline) return;
    const greeted = new Promise((resolve) => { this.#whenGreeted.push(() => resolve(undefined)); });
    this.link.wake();
    await Promise.race([greeted, pause(CONNECT_LIMIT_MS)]);
    if (!this.link.isOnline) throw OFFLINE;
  }

  /** @returns {Promise<void>} settles with the next session that is attached */
  online() {
    if (this.#isAuthorized) return Promise.resolve();
    return new Promise((resolve) => { this.#whenOnline.push(resolve); });
  }

  // --- Methods for tabs ---

  /**
   * @param {string} method of this class, of user.js or of files.js
   * @param {any[]} args
   * @param {CallOptions} options
   * @returns {Promise<any>}
   */
  async call(method, args, options) {
    if (method === 'upload' || method === 'fetchFile') {
      const files = /** @type {any} */ (await import('./files.js'));
      return files[method](this, options, ...args);
    }
    const api = /** @type {any} */ (method in this.#api ? this.#api : this.#user?.api);
    if (!api) throw OFFLINE;
    return api[method](...args);
  }

  #api = {
    snapshot: async () => ({ state: this.state, users: this.#user?.users() ?? [] }),
    visible: async () => {
      this.#visibleAt = Date.now();
    },
    wake: async () => {
      this.#visibleAt = Date.now();
      if (this.#session || !this.#wasGreeted) this.link.wake();
    },
    unplugged: async () => this.link.unplugged(),
    online: () => this.online(),
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
      await Promise.race([this.link.request('LOGOFF'), pause(LOGOFF_LIMIT_MS)]).catch(() => undefined);
      await this.#ended('', false);
    },
  };

  /**
   * Uses a separate connection, so that the present session, perhaps of another user, stays.
   * @param {string} login
   * @param {string} code
   * @param {string} password
   * @returns {Promise<unknown>}
   */
  #setPassword(login, code, password) {
    return new Promise((resolve, reject) => {
      const link = new Link(this.link.url, {
        onGreeted: async () => {
          await link.request('SET_PASSWORD', [login, code, password]).then(resolve, reject);
          link.stop();
        },
        onLost: () => reject(OFFLINE),
        onNotification: () => undefined,
        onDeauth: () => undefined,
        isWanted: () => false,
      });
      link.start();
    });
  }
}
