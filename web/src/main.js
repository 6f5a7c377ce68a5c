/**
 * Entry point: the state that screens show, their actions, and links in the address.
 *
 * Data flows one way: the engine (engine.js, in one of the tabs) emits events, the signals here
 * follow them, the screens (ui/) follow the signals. Screens call `actions`, most of which are
 * calls to the engine.
 */

import { Engine } from './engine.js';
import { Tabs } from './tabs.js';
import { batch, effect, signal } from './view.js';

/** @typedef {import('./types.js').Actions} Actions */
/** @typedef {import('./types.js').Chat} Chat */
/** @typedef {import('./types.js').FileInfo} FileInfo */
/** @typedef {import('./types.js').Form} Form */
/** @typedef {import('./types.js').Phase} Phase */
/** @typedef {import('./types.js').User} User */
/** @typedef {import('./history.js').History} History */

/** Notices, each shown once; the texts are keys of lang/. */
const NOTICES = {
  insecure: 'This page is not served over HTTPS: notifications and offline use are off.',
  noStorage: 'This browser keeps nothing for offline use.',
  badLink: 'This link does not work: it is damaged or incomplete.',
  badInvite: 'This invite is not valid any more.',
};
const URLS_MAX = 100;
const VISIBLE_EVERY_MS = 20_000;
const WAKE_EVERY_MS = 3_000;

class Client {
  phase = signal(/** @type {Phase} */ ('starting'));
  form = signal(/** @type {Form} */ ({}));
  connection = signal(/** @type {import('./types.js').ConnectionState} */ ('connecting'));
  me = signal(/** @type {import('./types.js').Me|null} */ (null));
  server = signal(/** @type {import('./types.js').Server|null} */ (null));
  chats = signal(/** @type {Chat[]} */ ([]));
  open = signal(0);
  users = signal(/** @type {Map<number, User>} */ (new Map()));
  notice = signal(/** @type {string|null} */ (null));
  update = signal(/** @type {boolean|'old'} */ (false));

  /** @type {'starting'|'out'|'in'} */
  #auth = 'starting';
  /** @type {Map<number, History>} */
  #timelines = new Map();
  /** @type {typeof import('./history.js') | undefined} */
  #history;
  /** @type {Map<number, Promise<string>>} blob: URLs by file, least recently used first */
  #urls = new Map();
  /** @type {Set<string>} */
  #said = new Set();
  #lastLocalId = '';
  /** @type {() => Promise<void>} */
  loadUpdate = async () => location.reload();

  /**
   * @param {string} slot names the databases
   * @param {LockManager} [locks] tabs that can agree on a leader share one slot
   */
  constructor(slot, locks) {
    this.tabs = new Tabs({
      name: slot,
      locks,
      makeService: (emit) => new Engine({ slot, url: socketUrl(), emit }),
      onEvent: (event) => this.#onEvent(event),
      onLeader: () => this.#readState(),
    });
    this.actions = this.#makeActions();
  }

  // --- Events of the engine ---

  async #readState() {
    const { state, users } = await this.tabs.call('snapshot');
    // A leader that is still starting emits its state soon; until then the page stays as it is.
    if (state.auth !== 'starting') {
      this.#onEvent({ type: 'users', users, isAll: true });
      this.#onEvent({ type: 'state', state });
    }
    this.#onEvent({ type: 'reset' });
  }

  /** @param {any} event */
  #onEvent(event) {
    switch (event.type) {
      case 'state':
        this.#onState(event.state);
        break;
      case 'users':
        this.#onUsers(event);
        break;
      case 'changes':
        this.#onChanges(event.changes);
        break;
      case 'outgoing':
        this.#timelines.get(event.chat)?.setOutgoing(event.entries, event.sent);
        break;
      case 'reset':
        for (const timeline of this.#timelines.values()) timeline.reload().catch(() => undefined);
        break;
      case 'notice':
        this.say(event.key);
        break;
    }
  }

  /** @param {import('./sync.js').MessageChange[]} changes */
  #onChanges(changes) {
    for (const [chat, timeline] of this.#timelines) {
      const own = changes.filter((change) => change.chat === chat);
      if (own.length > 0) timeline.apply(own);
    }
  }

  /** @param {Partial<Engine['state']>} state */
  #onState(state) {
    batch(() => {
      if (state.server !== undefined) this.server.value = state.server;
      if (this.phase.peek() === 'register' && !this.#mayRegister()) this.phase.value = 'login';
      if (state.connection !== undefined) this.connection.value = state.connection;
      if (state.me !== undefined && state.me?.id !== this.me.peek()?.id) this.#forgetUser();
      if (state.me !== undefined) this.me.value = state.me;
      if (state.chats !== undefined) this.chats.value = state.chats;
      if (state.auth !== undefined) this.#onAuth(state.auth, state);
      else if (state.server && this.#auth === 'out' && this.phase.peek() === 'starting') this.#showFirstForm();
    });
  }

  #forgetUser() {
    this.#timelines.clear();
    for (const url of this.#urls.values()) url.then((text) => URL.revokeObjectURL(text), () => undefined);
    this.#urls.clear();
    this.open.value = 0;
  }

  /**
   * @param {'starting'|'out'|'in'} auth
   * @param {{why?: string, login?: string}} state
   */
  async #onAuth(auth, { why, login }) {
    this.#auth = auth;
    if (auth === 'in') {
      this.#history ??= await import('./history.js');
      if (this.#auth === 'in' && this.phase.peek() !== 'reset') this.phase.value = 'ready';
    } else if (auth === 'out') {
      const isForm = ['register', 'reset', 'login'].includes(this.phase.peek());
      if (why || login || !isForm) this.form.value = { ...this.form.peek(), why: /** @type {any} */ (why), login };
      if (!isForm) this.#showFirstForm();
    }
  }

  /** Whether an invite can register: if registration is closed, invites are for existing users. */
  #mayRegister() {
    return this.server.peek()?.registration !== 'closed' || isEmptyServer();
  }

  /** A new server has no users: its first invite creates the first account. */
  #showFirstForm() {
    const { registration } = this.server.peek() ?? {};
    if (this.form.peek().invite) this.phase.value = this.#mayRegister() ? 'register' : 'login';
    else if (!isEmptyServer()) this.phase.value = 'login';
    // Nothing is shown until the server has reported who may register.
    else if (registration) this.phase.value = registration === 'open' ? 'login' : 'welcome';
  }

  /** @param {{users: User[], isAll?: boolean}} event */
  #onUsers({ users, isAll }) {
    const known = new Map(isAll ? [] : this.users.peek());
    let isRenamed = false;
    for (const user of users) {
      isRenamed ||= known.get(user.id)?.name !== user.name;
      known.set(user.id, user);
    }
    this.users.value = known;
    if (isRenamed) for (const timeline of this.#timelines.values()) timeline.renamed();
  }

  /**
   * Shows a notice once per page load.
   * @param {string} key
   */
  say(key) {
    if (this.#said.has(key)) return;
    this.#said.add(key);
    this.notice.value = NOTICES[/** @type {keyof NOTICES} */ (key)] ?? key;
  }

  // --- Timelines ---

  /**
   * @param {number} chat
   * @returns {History}
   */
  timeline(chat) {
    const known = this.#timelines.get(chat);
    if (known) return known;
    if (!this.#history) throw new Error('not logged in');
    const timeline = new this.#history.History(chat, {
      call: (method, args) => this.tabs.call(method, args),
      me: () => this.me.peek() ?? { id: 0, name: '' },
      name: (user) => this.#name(user),
      chat: () => this.chats.peek().find(({ id }) => id === chat),
      isHidden: () => document.hidden,
    });
    this.#timelines.set(chat, timeline);
    return timeline;
  }

  /** @param {number} user */
  #name(user) {
    const me = this.me.peek();
    return user === me?.id ? me.name : this.users.peek().get(user)?.name ?? '';
  }

  // --- Actions ---

  /** @returns {Actions} */
  #makeActions() {
    const call = (/** @type {string} */ method, /** @type {any[]} */ ...args) => this.tabs.call(method, args);
    /** @type {Partial<Actions>} */
    const own = {
      login: (name, password) => this.#login(name, password),
      register: (name, password, invite) => this.#register(name, password, invite),
      setPassword: async (login, code, password) => {
        await call('setPassword', login, code, password);
        batch(() => {
          this.form.value = { login, why: 'reset-done' };
          this.phase.value = this.#auth === 'in' ? 'ready' : 'login';
        });
      },
      logout: async () => {
        this.form.value = {};
        await import('./installed.js').then(({ forgetPush }) => forgetPush()).catch(() => undefined);
        await call('logout');
      },
      showForm: (phase) => {
        this.phase.value = this.#auth === 'in' ? 'ready' : phase;
      },
      openChat: (chat) => this.#openChat(chat),
      closeChat: () => {
        this.open.value = 0;
      },
      send: (chat, text, { replyTo = 0, files = [] } = {}) =>
        call('send', { localId: this.#nextLocalId(), chat, text, reply: replyTo, files }),
      createInvite: async (what) => {
        const code = await call('createInvite', what);
        return { code, link: `${await site()}/#invite=${code}` };
      },
      resetPassword: async (user) => {
        const { code, expires } = await call('resetPassword', user);
        const name = this.#name(user);
        return { code, expires, link: `${await site()}/#reset=${encodeURIComponent(name)}:${code}` };
      },
      subscribePush: (subscription) => call('subscribePush', subscription && {
        endpoint: subscription.endpoint,
        keys: Uint8Array.of(...subscription.p256dh, ...subscription.auth),
      }),
      upload: (chat, blob, info, onProgress, signal_) =>
        this.tabs.call('upload', [chat, blob, info], { onProgress, signal: signal_ }),
      prepare: async (file, name) => (await import('./files.js')).prepare(file, name),
      fileUrl: (file) => this.#fileUrl(file),
      download: async (file, onProgress) => {
        const blob = await this.tabs.call('fetchFile', [file], { onProgress });
        save(blob, file.name);
      },
      reload: () => this.loadUpdate(),
      reconnect: () => void call('wake'),
    };
    // All others are what the engine does under the same name.
    return /** @type {Actions} */ (new Proxy(own, {
      get: (_, name) => Reflect.get(own, name) ?? call.bind(null, String(name)),
    }));
  }

  /**
   * @param {string} name
   * @param {string} password
   */
  async #login(name, password) {
    const { invite } = this.form.peek();
    loadAhead();
    await this.tabs.call('login', [name, password]);
    this.form.value = {};
    if (invite) await this.#useInvite(invite);
  }

  /**
   * @param {string} name
   * @param {string} password
   * @param {string} [invite]
   * @returns {Promise<void>}
   */
  async #register(name, password, invite = '') {
    loadAhead();
    const register = (/** @type {string} */ code) => this.tabs.call('register', [name, password, code]);
    let left = '';
    await register(invite).catch((error) => {
      if (error.code !== 'bad-invite' || this.server.peek()?.registration !== 'open') throw error;
      // The invite is into a chat only: it is used once the account is there.
      left = invite;
      return register('');
    });
    this.form.value = {};
    document.querySelector('meta[name=vestnik-empty]')?.remove();
    if (left) return this.#useInvite(left);
    // An invite can lead into a chat, which is then a new user's only one.
    const [chat] = this.chats.peek();
    if (invite && chat) showChat(chat.id);
  }

  /** @param {string} code */
  async #useInvite(code) {
    try {
      await this.tabs.call('online');
      showChat(await this.tabs.call('useInvite', [code]));
    } catch {
      this.#said.delete('badInvite');
      this.say('badInvite');
    }
  }

  /** @param {number} chat */
  async #openChat(chat) {
    this.#history ??= await import('./history.js');
    // Before the view is there, so that it waits for the first unread message.
    const opening = this.timeline(chat).open();
    this.open.value = chat;
    await opening;
  }

  /** Returns an id that grows, also within one millisecond, and differs between tabs. */
  #nextLocalId() {
    const random = crypto.getRandomValues(new Uint16Array(1))[0].toString(36).padStart(4, '0');
    let time = Date.now().toString(36).padStart(9, '0');
    const last = this.#lastLocalId.slice(0, 9);
    if (time <= last) time = (parseInt(last, 36) + 1).toString(36).padStart(9, '0');
    this.#lastLocalId = `${time}-${random}`;
    return this.#lastLocalId;
  }

  /**
   * @param {FileInfo} file
   * @returns {Promise<string>}
   */
  async #fileUrl(file) {
    const { isRaster } = await import('./files.js');
    if (!isRaster(file.type)) throw { code: 'not-an-image', text: '', number: 0 };
    let url = this.#urls.get(file.id);
    this.#urls.delete(file.id);
    url ??= this.tabs.call('fetchFile', [file]).then((blob) => URL.createObjectURL(blob));
    this.#urls.set(file.id, url);
    url.catch(() => this.#urls.delete(file.id));
    for (const [id, old] of this.#urls) {
      if (this.#urls.size <= URLS_MAX) break;
      this.#urls.delete(id);
      old.then((text) => URL.revokeObjectURL(text), () => undefined);
    }
    return url;
  }

  // --- Links in the address ---

  /**
   * Reads a code from the address, and removes it there.
   * @param {string} [kept] what to read without one: the code of before a reload
   */
  readLink(kept = '') {
    const hash = location.hash || kept;
    if (hash === '' || /^#chat=\d{1,10}$/.test(hash)) return;
    history.replaceState(history.state, '', location.pathname + location.search);
    const [, kind, value] = /^#(invite|reset)=([^]+)$/.exec(hash) ?? [];
    if (kind === 'invite' && /^[\w-]{1,200}$/.test(value)) this.#onInvite(value);
    else if (kind !== 'reset' || !this.#onReset(value)) {
      this.#said.delete('badLink');
      this.say('badLink');
    }
  }

  /** @param {string} invite */
  async #onInvite(invite) {
    this.form.value = { invite, link: `#invite=${invite}` };
    if (this.#auth === 'starting') await untilAuth(this);
    if (this.#auth === 'in') {
      this.form.value = {};
      await this.#useInvite(invite);
    } else this.#showFirstForm();
  }

  /**
   * @param {string} value LOGIN:CODE
   * @returns {boolean} whether it is one
   */
  #onReset(value) {
    const colon = value.lastIndexOf(':');
    const [login, code] = [decode(value.slice(0, Math.max(colon, 0))), value.slice(colon + 1)];
    if (!login || !/^[\w-]{1,200}$/.test(code)) return false;
    batch(() => {
      this.form.value = { login, code, link: `#reset=${value}` };
      this.phase.value = 'reset';
    });
    return true;
  }
}

/**
 * @param {Client} client
 * @returns {Promise<void>}
 */
function untilAuth({ phase }) {
  return new Promise((resolve) => {
    const end = effect(() => {
      if (phase.value === 'starting') return;
      resolve();
      queueMicrotask(() => end());
    });
  });
}

/** Preloads the next modules while the server checks the password. */
function loadAhead() {
  for (const part of [import('./user.js'), import('./history.js'), import('./ui/chat.js')]) {
    part.catch(() => undefined);
  }
}

/**
 * The link whose code is not used yet, for a reload: it is no longer in the address.
 * @param {string} [link] replaces it
 */
function keptLink(link) {
  try {
    if (link === undefined) return sessionStorage.vestnikLink;
    sessionStorage.vestnikLink = link;
  } catch {
    // Without storage a reload loses it.
  }
  return undefined;
}

/** @param {string} text */
function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return '';
  }
}

/**
 * Opens a chat by the address, which the screens follow.
 * @param {number} chat
 */
function showChat(chat) {
  location.hash = `#chat=${chat}`;
}

/** Whether the server had no users when it served the page. */
const isEmptyServer = () => document.querySelector('meta[name=vestnik-empty]')?.getAttribute('content') === '1';

/** Where links begin: at the public URL, if the server has one. */
const site = () => fetch('/public-url').then((answer) => (answer.ok ? answer.text() : '')).catch(() => '')
  .then((url) => url.trim() || location.origin);

const socketUrl = () => `${location.protocol === 'https:' ? 'wss:' : 'ws:'}//${location.host}/ws`;

/**
 * Saves a file. Its type is hidden from the browser, so that it never opens the file itself.
 * @param {Blob} blob
 * @param {string} name
 */
function save(blob, name) {
  const url = URL.createObjectURL(new Blob([blob], { type: 'application/octet-stream' }));
  const link = document.createElement('a');
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/** @param {Client} client */
function watchPage(client) {
  const wake = () => document.hidden || void client.tabs.call('wake').catch(() => undefined);
  document.addEventListener('visibilitychange', wake);
  addEventListener('pageshow', wake);
  addEventListener('online', wake);
  addEventListener('offline', () => void client.tabs.call('unplugged').catch(() => undefined));
  addEventListener('focus', wake);
  setInterval(() => document.hidden || client.tabs.call('visible').catch(() => undefined), VISIBLE_EVERY_MS);
  // Timers of a hidden leader are throttled, so a visible tab triggers the next attempt.
  setInterval(() => {
    if (!client.tabs.isLeader && client.connection.peek() !== 'online') wake();
  }, WAKE_EVERY_MS);
  addEventListener('hashchange', () => client.readLink());
  // From here on, before the page is complete: what the worker says earlier waits, later is lost.
  navigator.serviceWorker?.addEventListener('message', ({ data }) => {
    if (data?.kind === 'open' && Number.isInteger(data.chat)) showChat(data.chat);
  });
}

async function boot() {
  const { locks } = navigator;
  const slot = locks ? 'vestnik' : await (await import('./slots.js')).claim();
  const client = new Client(slot, locks);
  watchPage(client);
  client.readLink(keptLink());
  effect(() => {
    const { invite, link = '' } = client.form.value;
    keptLink(invite || client.phase.value === 'reset' ? link : '');
  });
  client.tabs.start();
  const { start } = await import('./ui/app.js');
  await start(/** @type {import('./types.js').Store} */ (/** @type {unknown} */ (client)));
  if (!isSecureContext) {
    // The cards show the state themselves.
    await untilAuth(client);
    if (client.phase.peek() === 'ready') client.say('insecure');
    return;
  }
  const end = effect(() => {
    if (client.phase.value !== 'ready') return;
    // The login page needs no service worker.
    import('./installed.js').then(({ install }) => install(client));
    queueMicrotask(() => end());
  });
}

boot();
