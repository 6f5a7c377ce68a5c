/**
 * The picker of reactions, and the list of who gave which.
 */
import { h, signal } from '../view.js';
import { personName } from './people.js';
import { avatar, explain, openMenu, openPanel, setting, saveSetting, store, t } from './kit.js';

/** The first row, until the user has used other emoji. */
const USUAL = ['👍', '❤️', '😂', '🎉', '😮', '😢', '🙏'];
const RECENT_MAX = 7;

const GROUPS = [
  '👍 👎 ❤️ 🔥 🎉 👏 🙏 💯 ✅ ❌ 👀 🤝 💪 👋 🤞 ✌️ 👌 🫶 ⭐ ⚡ 💡 ❓ ❗ ➕',
  '😀 😄 😂 🤣 😊 😍 😘 😎 🤗 🤔 😴 😐 🙄 😬 😏 😅 🥲 😢 😭 😱 😡 🤯 🥳 🤩 😇 🤓 🫠 🤒 😋 🤭 🫡 😉',
  '🐶 🐱 🐻 🦊 🐼 🐸 🐵 🐝 🦄 🐢 🌸 🌻 🌲 🍀 🌞 🌈 ❄️ 🌙 🌊 🍎 🍓 🍕 🍔 🍰 🍺 🍷 ☕ 🎂 🍿 🥗',
  '⚽ 🏀 🎸 🎨 🎬 🎮 🎲 🏆 🚀 🚗 🚲 ✈️ 🏠 🏕️ 🎁 📷 📌 📅 📞 💻 🔧 🔒 🔔 💰 📚 ✏️ 🗑️ 🕐',
].map((group) => group.split(' '));

/** @param {string} emoji */
function remember(emoji) {
  const next = [emoji, ...recent().filter((one) => one !== emoji)].slice(0, RECENT_MAX);
  saveSetting('reactions', next.join(' '));
}

function recent() {
  const kept = setting('reactions').split(' ').filter(Boolean);
  return [...new Set([...kept, ...USUAL])].slice(0, RECENT_MAX);
}

/**
 * Opens the picker next to a message.
 * @param {HTMLElement} opener
 * @param {(emoji: string) => void} choose
 */
export function openPicker(opener, choose) {
  openMenu(opener, t('React'), [], {
    before: (close) => {
      const item = (/** @type {string} */ emoji) => h('button', {
        type: 'button', role: 'menuitem', class: 'emoji-item', tabindex: -1, 'aria-label': emoji,
        onclick: () => {
          close();
          remember(emoji);
          choose(emoji);
        },
      }, emoji);
      return h('div', { class: 'picker', role: 'none', onkeydown: gridKey }, [
        h('div', { class: 'emoji-row recent', role: 'none' }, recent().map(item)),
        ...groupsWithout(recent()).map((group) =>
          h('div', { class: 'emoji-row', role: 'none' }, group.map(item))),
      ]);
    },
  });
}

/** Every emoji is there once, so that its name is. @param {string[]} shown */
const groupsWithout = (shown) =>
  GROUPS.map((group) => group.filter((emoji) => !shown.includes(emoji)));

/** Up and down move by a line, not by one. @param {KeyboardEvent} event */
function gridKey(event) {
  if (event.key !== 'ArrowUp' && event.key !== 'ArrowDown') return;
  const place = /** @type {HTMLElement} */ (event.currentTarget);
  const items = /** @type {HTMLElement[]} */ ([...place.querySelectorAll('[role=menuitem]')]);
  const from = document.activeElement?.getBoundingClientRect();
  if (!from) return;
  const isDown = event.key === 'ArrowDown';
  const rows = items.map((item) => ({ item, box: item.getBoundingClientRect() }))
    .filter(({ box }) => (isDown ? box.top > from.top + 4 : box.top < from.top - 4));
  const top = isDown ? Math.min(...rows.map(({ box }) => box.top))
    : Math.max(...rows.map(({ box }) => box.top));
  const nearest = rows.filter(({ box }) => Math.abs(box.top - top) < 4)
    .sort((a, b) => Math.abs(a.box.left - from.left) - Math.abs(b.box.left - from.left))[0];
  if (!nearest) return;
  nearest.item.focus();
  event.preventDefault();
  event.stopPropagation();
}

/**
 * Shows who gave which reaction.
 * @param {number} chatId
 * @param {number} messageId
 */
export function openReactions(chatId, messageId) {
  openPanel({ title: t('Reactions'), class: 'small' }, () => {
    const list = signal(/** @type {{user: number, name: string, emoji: string}[] | null} */ (null));
    const error = signal('');
    store.actions.reactions(chatId, messageId).then((value) => (list.value = value),
      (failure) => (error.value = explain(failure)));
    return h('div', { class: 'panel-body' },
      () => error.value && h('p', { class: 'error' }, error.value),
      h('ul', { class: 'people' }, () => (list.value ?? []).map(({ user, name, emoji }) =>
        h('li', { class: 'person' }, () => avatar(user, name || personName(user), 'small'),
          h('bdi', { class: 'person-name' }, () => name || personName(user)),
          h('span', { class: 'emoji' }, emoji)))));
  });
}
