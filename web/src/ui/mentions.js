/**
 * Completion of `@` and a prefix of a member's name in the composer.
 */
import { h } from '../view.js';
import { avatar, store, t } from './kit.js';

/** @typedef {import('../types.js').Chat} Chat */
/** @typedef {import('../types.js').Member} Member */
/**
 * @typedef {object} Completion
 * @property {number} at the chosen one
 * @property {(event: KeyboardEvent, set: (next: Completion | null) => void,
 *   choose: (name: string) => void) => boolean} key true: it was for the list
 * @property {(choose: (name: string) => void) => any} render
 */

const SHOWN_MAX = 6;
const KEPT_MS = 60_000;

/** @type {Map<number, {at: number, members: Promise<Member[]>}>} */
const known = new Map();

/** @param {number} chatId */
function membersOf(chatId) {
  let entry = known.get(chatId);
  if (!entry || Date.now() - entry.at > KEPT_MS) {
    const members = store.actions.members(chatId).catch(() => []);
    known.set(chatId, (entry = { at: Date.now(), members }));
  }
  return entry.members;
}

/**
 * The members that match the text before the caret; null if none does.
 * @param {Chat} chat
 * @param {HTMLTextAreaElement} box
 * @returns {Promise<Completion | null>}
 */
export async function complete(chat, box) {
  const members = await membersOf(chat.id);
  // The text may have changed while the members were loaded.
  const before = box.value.slice(0, box.selectionStart);
  const found = /(?:^|[^\p{L}\p{N}])@([^\s@]{0,32})$/u.exec(before);
  if (!found || document.activeElement !== box) return null;
  const start = found[1].toLowerCase();
  const me = store.me.peek()?.id;
  const names = members
    .filter((one) => one.id !== me && !one.banned && one.name.toLowerCase().startsWith(start));
  const all = { id: 0, name: 'all' };
  const shown = [...(chat.isAdmin && 'all'.startsWith(start) ? [all] : []), ...names]
    .slice(0, SHOWN_MAX);
  return shown.length > 0 ? completion(shown, 0) : null;
}

/**
 * @param {{id: number, name: string}[]} shown
 * @param {number} at
 * @returns {Completion}
 */
function completion(shown, at) {
  return {
    at,
    key(event, set, choose) {
      if (event.key === 'ArrowDown') set(completion(shown, (at + 1) % shown.length));
      else if (event.key === 'ArrowUp') {
        set(completion(shown, (at + shown.length - 1) % shown.length));
      } else if (event.key === 'Escape') set(null);
      else if ((event.key === 'Enter' && !event.shiftKey) || event.key === 'Tab') {
        choose(shown[at].name);
      } else return false;
      return true;
    },
    render: (choose) => h('ul', { class: 'mentions', id: 'mentions', role: 'listbox',
      'aria-label': t('Members') }, shown.map(({ id, name }, index) => h('li', {
      role: 'option', id: `mention-${index}`, 'aria-selected': String(index === at),
      onpointerdown: (/** @type {Event} */ event) => {
        event.preventDefault();
        choose(name);
      },
    }, avatar(id, name, 'tiny'), h('bdi', null, name),
    id === 0 && h('span', { class: 'hint' }, t('everybody here'))))),
  };
}
