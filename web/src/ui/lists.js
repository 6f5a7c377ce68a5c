/**
 * Lists that come from the server: on opening, or while typing; and rows of users.
 */
import { each, h, signal, when } from '../view.js';
import { avatar, explain, store, t } from './kit.js';

/** Pause after the last key before the server is queried (debounce). */
const PAUSE_MS = 200;

/**
 * Runs a query after a pause in typing; outdated answers are dropped.
 * @template T
 * @param {(query: string) => Promise<T[]>} ask
 */
export function liveQuery(ask) {
  const query = signal('');
  const results = signal(/** @type {T[]} */ ([]));
  const error = signal('');
  const isDone = signal(false);
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  let asked = 0;
  const run = async () => {
    const number = (asked += 1);
    try {
      const found = await ask(query.peek());
      if (number !== asked) return;
      results.value = found;
      error.value = '';
    } catch (failure) {
      if (number !== asked) return;
      results.value = [];
      error.value = explain(failure);
    }
    isDone.value = true;
  };
  return {
    query,
    results,
    error,
    isDone,
    run,
    /** @param {string} text */
    set(text) {
      query.value = text.trim();
      clearTimeout(timer);
      asked += 1;
      isDone.value = false;
      if (query.peek() === '') results.value = [];
      else timer = setTimeout(run, PAUSE_MS);
    },
  };
}

/**
 * A field that searches while one types.
 * @param {string} label
 * @param {(text: string) => void} search
 * @param {Record<string, any>} [props] of the input
 */
export function searchField(label, search, props) {
  return h('div', { class: 'field' }, h('input', {
    type: 'search', 'aria-label': label, placeholder: label, autocomplete: 'off',
    oninput: (/** @type {any} */ event) => search(event.target.value), ...props,
  }));
}

/** A line that says why something failed. @param {import('../view.js').Signal<string>} error */
export const errorLine = (error) => () => error.value && h('p', { class: 'error' }, error.value);

/**
 * What the server is asked for when a screen opens.
 * @template T
 * @param {() => Promise<T>} ask
 */
export function asked(ask) {
  const answer = signal(/** @type {T | null} */ (null));
  const error = signal('');
  const load = () => ask().then((value) => void (answer.value = value),
    (failure) => void (error.value = explain(failure)));
  load();
  return { answer, error: errorLine(error), load };
}

/**
 * The name of a person, as far as it is known.
 * @param {number} id
 */
export function personName(id) {
  const me = store.me.value;
  return id === me?.id ? me.name : store.users.value.get(id)?.name ?? '…';
}

/**
 * A row for a user, with elements at its end.
 * @param {{id: number, name: string, online?: boolean}} person
 * @param {import('../view.js').Child} about
 * @param {import('../view.js').Child} [end]
 */
export function personRow(person, about, end) {
  return h('div', { class: 'person' },
    h('span', { class: 'avatar-place' }, avatar(person.id, person.name, 'small'),
      person.online && h('span', { class: 'online-dot' })),
    h('span', { class: 'person-about' },
      h('bdi', { class: 'person-name' }, person.name),
      about && h('span', { class: 'person-note' }, about)),
    end);
}

/**
 * A field with the users that it finds.
 * @param {string} label
 * @param {(prefix: string) => Promise<import('../types.js').User[]>} ask
 * @param {(user: import('../types.js').User) => import('../view.js').Child} end
 */
export function peopleField(label, ask, end) {
  const live = liveQuery(ask);
  const list = h('ul', { class: 'people' });
  each(list, () => live.results.value, (user) => user.id, (user) =>
    h('li', null, personRow(user.peek(), null, end(user.peek()))));
  return h('div', null,
    searchField(label, live.set),
    list,
    when(() => live.isDone.value && live.results.value.length === 0 && live.query.value !== '',
      () => h('p', { class: 'hint' }, () => live.error.value || t('Nobody found.'))));
}
