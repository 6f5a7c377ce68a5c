/**
 * Storage of one user: IndexedDB, or memory where IndexedDB is forbidden or full.
 *
 * Keys are stored outside the values. A write is a list of changes in one transaction. Only the
 * leader tab, which has the connection, writes.
 */

/** @typedef {'meta'|'chats'|'users'|'messages'|'outbox'|'drafts'} StoreName */
/**
 * Store, key, value; without a value the key is deleted. The key `[chat]` of `messages` deletes
 * all of that chat, `[chat, 0, before]` those with a lower id, and ALL everything in a store.
 * @typedef {[StoreName, any, any?]} Change
 */

/** @type {StoreName[]} */
const STORES = ['meta', 'chats', 'users', 'messages', 'outbox', 'drafts'];
export const ALL = Symbol('all');

/**
 * @template T
 * @param {IDBRequest<T>} request
 * @returns {Promise<T>}
 */
const result = (request) => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

/**
 * @param {number} chat
 * @param {number} [before]
 */
const ofChat = (chat, before) =>
  IDBKeyRange.bound([chat], before === undefined ? [chat, []] : [chat, before], false, true);

/** Time limit of opening: some browsers never answer such a request. */
const OPEN_LIMIT_MS = 3_000;

export class Database {
  /** @type {IDBDatabase | null} null: memory */
  #idb = null;
  /** @type {Promise<void> | undefined} while memory takes over */
  #degrading;
  /** @type {Record<StoreName, Map<any, any>>} messages: by chat, then by id */
  #memory = /** @type {any} */ (Object.fromEntries(STORES.map((store) => [store, new Map()])));

  /**
   * @param {string} name
   * @param {(isEmpty: boolean) => void} onDegraded memory takes over; empty: messages were lost
   */
  constructor(name, onDegraded) {
    this.name = name;
    this.onDegraded = onDegraded;
  }

  get isPersistent() {
    return this.#idb !== null;
  }

  async open() {
    try {
      const request = indexedDB.open(this.name, 1);
      request.onupgradeneeded = () => {
        for (const store of STORES) request.result.createObjectStore(store);
      };
      const idb = await Promise.race([result(request), new Promise((_, reject) => {
        setTimeout(() => reject(new Error('no answer')), OPEN_LIMIT_MS);
      })]);
      // Another tab deletes the database at log-out: close it, so that it can.
      idb.onversionchange = () => idb.close();
      this.#idb = idb;
    } catch {
      this.onDegraded(false);
    }
    return this;
  }

  close() {
    this.#idb?.close();
  }

  /** Deletes the database itself. */
  async destroy() {
    this.close();
    for (const store of STORES) this.#memory[store].clear();
    if (this.#idb) await result(indexedDB.deleteDatabase(this.name)).catch(() => undefined);
  }

  /**
   * @param {StoreName} store
   * @param {any[]} keys
   * @returns {Promise<any[]>} undefined for missing keys
   */
  async getMany(store, keys) {
    return this.#read(store, (objects) => Promise.all(keys.map((key) => result(objects.get(key)))),
      () => keys.map((key) => store === 'messages'
        ? this.#memory.messages.get(key[0])?.get(key[1])
        : this.#memory[store].get(key)));
  }

  /**
   * @param {StoreName} store
   * @param {any} key
   * @returns {Promise<any>}
   */
  async get(store, key) {
    return (await this.getMany(store, [key]))[0];
  }

  /**
   * All entries of a store (not `messages`), in the order of the keys.
   * @param {StoreName} store
   * @returns {Promise<[any, any][]>}
   */
  async all(store) {
    return this.#read(store, async (objects) => {
      const [keys, values] = await Promise.all([result(objects.getAllKeys()), result(objects.getAll())]);
      return keys.map((key, index) => /** @type {[any, any]} */ ([key, values[index]]));
    }, () => [...this.#memory[store]].sort(([a], [b]) => (a < b ? -1 : 1)));
  }

  /**
   * The newest messages with `from <= id < before`, ascending.
   * @param {number} chat
   * @param {number} from
   * @param {number} before
   * @param {number} limit
   * @returns {Promise<any[]>}
   */
  async older(chat, from, before, limit) {
    return this.#read('messages', (objects) => new Promise((resolve, reject) => {
      /** @type {any[]} */
      const list = [];
      const range = IDBKeyRange.bound([chat, from], [chat, before], false, true);
      const request = objects.openCursor(range, 'prev');
      request.onerror = () => reject(request.error);
      request.onsuccess = () => {
        const cursor = request.result;
        if (cursor) list.push(cursor.value);
        if (cursor && list.length < limit) cursor.continue();
        else resolve(list.reverse());
      };
    }), () => this.#sorted(chat, (id) => id >= from && id < before).slice(-limit));
  }

  /**
   * The oldest messages with `id > after`, ascending.
   * @param {number} chat
   * @param {number} after
   * @param {number} limit
   * @returns {Promise<any[]>}
   */
  async newer(chat, after, limit) {
    return this.#read('messages',
      (objects) => result(objects.getAll(IDBKeyRange.bound([chat, after], [chat, []], true), limit)),
      () => this.#sorted(chat, (id) => id > after).slice(0, limit));
  }

  /**
   * The id of the oldest among the newest `count` messages of a chat; 0 if there are no older ones.
   * @param {number} chat
   * @param {number} count at least 2
   * @returns {Promise<number>}
   */
  async firstOfNewest(chat, count) {
    return this.#read('messages', (objects) => new Promise((resolve, reject) => {
      let [hasSkipped, first] = [false, 0];
      const request = objects.openKeyCursor(ofChat(chat), 'prev');
      request.onerror = () => reject(request.error);
      request.onsuccess = () => {
        const cursor = request.result;
        if (!cursor || first) resolve(cursor ? first : 0);
        else if (!hasSkipped) {
          hasSkipped = true;
          cursor.advance(count - 1);
        } else {
          first = /** @type {number[]} */ (cursor.primaryKey)[1];
          cursor.continue();
        }
      };
    }), () => {
      const all = this.#sorted(chat, () => true);
      return all.length > count ? all[all.length - count].id : 0;
    });
  }

  /**
   * @param {number} chat
   * @param {(id: number) => boolean} isWanted
   */
  #sorted(chat, isWanted) {
    const messages = [...(this.#memory.messages.get(chat)?.values() ?? [])];
    return messages.filter(({ id }) => isWanted(id)).sort((a, b) => a.id - b.id);
  }

  /**
   * Makes all changes atomically.
   * @param {Change[]} changes
   */
  async write(changes) {
    if (changes.length === 0) return;
    await this.#degrading;
    if (this.#idb) {
      try {
        await this.#writeStored(this.#idb, changes);
        return;
      } catch (error) {
        await (this.#degrading ??= this.#degrade(error));
      }
    }
    for (const change of changes) this.#writeMemory(change);
  }

  /**
   * @param {IDBDatabase} idb
   * @param {Change[]} changes
   * @returns {Promise<void>}
   */
  #writeStored(idb, changes) {
    return new Promise((resolve, reject) => {
      const transaction = idb.transaction([...new Set(changes.map(([store]) => store))], 'readwrite');
      transaction.oncomplete = () => resolve();
      transaction.onabort = () => reject(transaction.error);
      for (const [store, key, value] of changes) {
        const objects = transaction.objectStore(store);
        if (key === ALL) objects.clear();
        else if (value !== undefined) objects.put(value, key);
        else objects.delete(store === 'messages' && key.length !== 2 ? ofChat(key[0], key[2]) : key);
      }
      // A page that closes right now does not live to see it commit by itself.
      transaction.commit?.();
    });
  }

  /** @param {Change} change */
  #writeMemory([store, key, value]) {
    const objects = this.#memory[store];
    if (key === ALL) objects.clear();
    else if (store !== 'messages') value === undefined ? objects.delete(key) : objects.set(key, value);
    else if (key.length === 1) objects.delete(key[0]);
    else if (key.length === 3) {
      const ofChat_ = objects.get(key[0]) ?? new Map();
      for (const id of ofChat_.keys()) if (id < key[2]) ofChat_.delete(id);
    } else {
      if (!objects.has(key[0])) objects.set(key[0], new Map());
      const ofChat_ = objects.get(key[0]);
      if (value === undefined) ofChat_.delete(key[1]);
      else ofChat_.set(key[1], value);
    }
  }

  /**
   * @template T
   * @param {StoreName} store
   * @param {(objects: IDBObjectStore) => Promise<T>} stored
   * @param {() => T} inMemory
   * @returns {Promise<T>}
   */
  async #read(store, stored, inMemory) {
    await this.#degrading;
    if (this.#idb) {
      try {
        return await stored(this.#idb.transaction(store).objectStore(store));
      } catch (error) {
        await (this.#degrading ??= this.#degrade(error));
      }
    }
    return inMemory();
  }

  /**
   * Switches to memory, with all data that can still be read.
   * @param {unknown} error
   */
  async #degrade(error) {
    const idb = /** @type {IDBDatabase} */ (this.#idb);
    this.#idb = null;
    console.warn('storage failed, going on in memory:', error);
    let isEmpty = false;
    try {
      for (const store of STORES) {
        const objects = idb.transaction(store).objectStore(store);
        const [keys, values] = await Promise.all([result(objects.getAllKeys()), result(objects.getAll())]);
        keys.forEach((key, index) => this.#writeMemory([store, key, values[index]]));
      }
    } catch {
      isEmpty = true;
    }
    idb.close();
    this.onDegraded(isEmpty);
  }
}
