/**
 * Choosing from lists: a chat by its name, a message by its words, a member behind an `@`, a
 * reaction, from a menu; and the list of keys.
 */
import { addLayer, append, each, h, openDialog, root, signal, when } from '../view.js';
import { avatarId, badgeText, openChat } from './app.js';
import { jumpIn } from './chat.js';
import {
  avatar, hue, icon, isComposing, isPhone, openPanel, saveSetting, setting, shortTime, store, t,
} from './kit.js';
import { asked, errorLine, liveQuery, personName, searchField } from './lists.js';

/** @typedef {import('../types.js').Chat} Chat */
/** @typedef {import('../types.js').Member} Member */
/** @typedef {import('../types.js').SearchHit} SearchHit */
/**
 * @typedef {object} Completion
 * @property {number} at the chosen one
 * @property {(event: KeyboardEvent, set: (next: Completion | null) => void,
 *   choose: (name: string) => void) => boolean} key true: it was for the list
 * @property {(choose: (name: string) => void) => any} render
 */

// --- Chats, and keys -----------------------------------------------------------------------------

const CHATS_MAX = 9;

export function openSwitcher() {
  openDialog({ title: t('Go to chat'), class: 'switcher', hideTitle: true }, (close) => {
    const query = signal('');
    const at = signal(0);
    const found = () => {
      const wanted = query.value.trim().toLowerCase();
      const chats = store.chats.value.filter((chat) =>
        `${chat.title}\n${chat.name}`.toLowerCase().includes(wanted));
      const starts = (/** @type {{title: string}} */ chat) =>
        (chat.title.toLowerCase().startsWith(wanted) ? 0 : 1);
      return chats.sort((a, b) => starts(a) - starts(b)).slice(0, CHATS_MAX);
    };
    const go = (/** @type {number} */ id) => {
      close();
      setTimeout(() => openChat(id), 0);
    };
    const list = h('ul', { class: 'people', id: 'switcher-list', role: 'listbox', 'aria-label': t('Chats') });
    each(list, found, (chat) => chat.id, (chat) => h('li', {
      role: 'option', class: 'row-button', id: `switch-${chat.peek().id}`,
      'aria-selected': () => String(found()[at.value]?.id === chat.value.id),
      onclick: () => go(chat.peek().id),
    }, h('div', { class: 'person' }, avatar(avatarId(chat.peek()), chat.peek().title, 'small'),
      h('bdi', { class: 'person-name' }, () => chat.value.title),
      () => chat.value.unread > 0 && h('span', { class: 'badge' }, badgeText(chat.value)))));
    return h('div', { class: 'panel-body' },
      h('div', { class: 'field' }, h('input', {
        type: 'text', role: 'combobox', 'aria-label': t('Go to chat'), placeholder: t('Go to chat'),
        'aria-expanded': 'true', 'aria-controls': 'switcher-list', autocomplete: 'off', autofocus: true,
        'aria-activedescendant': () => (found()[at.value] ? `switch-${found()[at.value].id}` : null),
        oninput: (/** @type {any} */ event) => {
          query.value = event.target.value;
          at.value = 0;
        },
        onkeydown: (/** @type {KeyboardEvent} */ event) => {
          if (isComposing(event)) return;
          const count = found().length;
          if (event.key === 'ArrowDown') at.value = (at.peek() + 1) % Math.max(count, 1);
          else if (event.key === 'ArrowUp') at.value = (at.peek() + count - 1) % Math.max(count, 1);
          else if (event.key === 'Enter' && found()[at.peek()]) go(found()[at.peek()].id);
          else return;
          event.preventDefault();
        },
      })), list);
  });
}

export function openKeys() {
  const keys = [
    [['Ctrl', 'K'], t('Go to another chat')],
    [['Alt', '↑'], t('The chat above')],
    [['Alt', '↓'], t('The chat below')],
    [['Shift', 'Alt', '↓'], t('The next chat with something unread')],
    [['Ctrl', 'Shift', 'F'], t('Search')],
    [['Enter'], t('Send')],
    [['Shift', 'Enter'], t('A new line')],
    [['↑'], t('Edit my last message, when the box is empty')],
    [['Esc'], t('Mark as read and go to the newest; end a reply or an edit')],
    [['@'], t('Complete a name')],
    [['?'], t('This list')],
  ];
  openPanel({ title: t('Keys') }, () => h('div', { class: 'panel-body' },
    h('dl', { class: 'keys' }, keys.map(([combo, text]) => h('div', null,
      h('dt', null, /** @type {string[]} */ (combo).map((key) => h('kbd', null, key))),
      h('dd', null, String(text)))))));
}

// --- Messages ------------------------------------------------------------------------------------

/** @param {number} chatId the chat to search; 0: all */
export function openSearch(chatId) {
  openPanel({ title: t('Search'), class: 'tall' }, (close) => {
    const isEverywhere = signal(chatId === 0);
    const live = liveQuery((query) =>
      store.actions.search(isEverywhere.peek() ? 0 : chatId, query));
    const list = h('ul', { class: 'hits' });
    each(list, () => live.results.value, ({ message }) => message.id, (hit) =>
      h('li', null, hitRow(hit.peek(), live.query.peek(), chatId === 0 || isEverywhere.peek(), close)));
    return h('div', { class: 'panel-body' },
      searchField(t('Search'), live.set, {
        placeholder: t('Search messages'), autofocus: true, enterkeyhint: 'search',
        onkeydown: (/** @type {any} */ event) => {
          if (event.key === 'Enter' && live.query.peek() !== '') live.run();
        },
      }),
      chatId !== 0 && h('label', { class: 'check' },
        h('input', {
          type: 'checkbox',
          onchange: (/** @type {any} */ event) => {
            isEverywhere.value = event.target.checked;
            if (live.query.peek() !== '') live.run();
          },
        }), h('span', null, t('In all my chats'))),
      h('div', { 'aria-live': 'polite' },
        when(() => live.query.value === '', () => h('p', { class: 'hint' },
          t('All words have to occur. word* finds beginnings, “two words” a phrase.'))),
        errorLine(live.error),
        when(() => live.isDone.value && live.query.value !== '' && live.results.value.length === 0
          && !live.error.value, () => h('div', { class: 'empty small' },
          h('p', null, t('Nothing found.')),
          h('p', { class: 'hint' }, t('Try fewer words, or the beginning of one: hol*'))))),
      list);
  });
}

/**
 * @param {SearchHit} hit
 * @param {string} query
 * @param {boolean} showsChat
 * @param {() => void} close
 */
function hitRow({ chat, message }, query, showsChat, close) {
  const title = store.chats.peek().find((one) => one.id === chat)?.title ?? '';
  return h('button', {
    class: 'hit',
    onclick: () => {
      close();
      setTimeout(async () => {
        await openChat(chat);
        jumpIn(chat, message.id);
      }, 0);
    },
  },
  () => avatar(message.sender, personName(message.sender), 'small'),
  h('span', { class: 'person-about' },
    h('span', { class: 'hit-top' },
      h('bdi', { class: 'person-name', style: { '--hue': String(hue(message.sender)) } },
        () => personName(message.sender)),
      showsChat && title && h('span', { class: 'hint' }, title),
      h('time', { class: 'row-time' }, shortTime(message.created))),
    h('span', { class: 'hit-text', dir: 'auto' }, marked(message.text, query))));
}

const BEFORE_HIT = 40;

/**
 * An excerpt around the first match, with the matched words marked.
 * @param {string} text
 * @param {string} query
 */
export function marked(text, query) {
  const words = query.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];
  const line = text.replace(/\s+/g, ' ');
  const escaped = words.map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
  if (escaped.length === 0) return [line.slice(0, 200)];
  const pattern = new RegExp(`(?<![\\p{L}\\p{N}])(${escaped.join('|')})`, 'giu');
  const first = Math.max(0, line.search(pattern) - BEFORE_HIT);
  const start = first === 0 ? 0 : line.indexOf(' ', first) + 1;
  const piece = (start > 0 ? '…' : '') + line.slice(start, start + 220);
  return piece.split(pattern).map((part, index) =>
    (index % 2 === 1 ? h('mark', null, part) : part));
}

// --- Names behind an @ ---------------------------------------------------------------------------

const NAMES_MAX = 6;
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
    .slice(0, NAMES_MAX);
  return shown.length > 0 ? completion(shown, 0, start) : null;
}

/**
 * @param {{id: number, name: string}[]} shown
 * @param {number} at
 * @param {string} typed in lower case
 * @returns {Completion}
 */
function completion(shown, at, typed) {
  return {
    at,
    key(event, set, choose) {
      if (event.key === 'ArrowDown') set(completion(shown, (at + 1) % shown.length, typed));
      else if (event.key === 'ArrowUp') {
        set(completion(shown, (at + shown.length - 1) % shown.length, typed));
      } else if (event.key === 'Escape') set(null);
      else if (event.key === 'Enter' && at === 0 && shown.some(({ name }) => name.toLowerCase() === typed)) {
        // The name is there in full: Enter sends.
        set(null);
        return false;
      } else if ((event.key === 'Enter' && !event.shiftKey) || event.key === 'Tab') {
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

// --- Menus --------------------------------------------------------------------------------------

/**
 * @typedef {{label: string, icon?: keyof typeof import('./kit.js').ICONS, class?: string, run: () => void}} MenuItem
 */

/** @type {(() => void) | null} */
let closeMenu = null;

/**
 * Opens a menu at a point, or under the element that opened it. On a narrow screen it is a sheet
 * at the bottom. Arrow keys move, Escape closes; the focus goes back to `opener`.
 * @param {HTMLElement} opener
 * @param {string} label
 * @param {MenuItem[]} items
 * @param {{x?: number, y?: number, before?: (close: () => void) => import('../view.js').Child}} [options]
 */
export function openMenu(opener, label, items, options = {}) {
  closeMenu?.();
  root((dispose) => {
    const close = () => {
      if (closeMenu !== close) return;
      closeMenu = null;
      closed();
      const hadFocus = layer.contains(document.activeElement);
      dispose();
      layer.remove();
      if (hadFocus && opener.isConnected) opener.focus({ preventScroll: true });
    };
    closeMenu = close;
    const closed = addLayer(close);
    const menu = h('div', { role: 'menu', class: 'menu', 'aria-label': label, tabindex: -1 });
    if (options.before) append(menu, options.before(close));
    for (const item of items) {
      menu.append(h('button', {
        role: 'menuitem', tabindex: -1, class: `menu-item ${item.class ?? ''}`,
        onclick: () => {
          close();
          item.run();
        },
      }, item.icon && icon(item.icon), h('span', null, item.label)));
    }
    const layer = h('div', {
      class: 'menu-layer',
      onkeydown: (/** @type {KeyboardEvent} */ event) => menuKey(event, menu, close),
      onpointerdown: (/** @type {PointerEvent} */ event) => {
        if (event.target !== layer) return;
        event.preventDefault();
        close();
      },
      oncontextmenu: (/** @type {Event} */ event) => event.preventDefault(),
    }, menu);
    // While a modal dialog is open, elements outside of it are inert.
    (opener.closest('dialog, main') ?? document.body).append(layer);
    placeMenu(menu, opener, options);
    menu.querySelector('[role=menuitem]')?.focus({ preventScroll: true });
  });
}

/**
 * @param {KeyboardEvent} event
 * @param {HTMLElement} menu
 * @param {() => void} close
 */
function menuKey(event, menu, close) {
  const items = /** @type {HTMLElement[]} */ ([...menu.querySelectorAll('[role=menuitem]')]);
  const at = items.indexOf(/** @type {HTMLElement} */ (document.activeElement));
  /** @type {Record<string, number>} */
  const moves = {
    ArrowDown: at + 1, ArrowRight: at + 1, ArrowUp: at - 1, ArrowLeft: at - 1,
    Home: 0, End: items.length - 1,
  };
  if (event.key === 'Escape' || event.key === 'Tab') close();
  else if (event.key in moves) items.at(moves[event.key] % items.length)?.focus();
  else return;
  event.preventDefault();
  event.stopPropagation();
}

/**
 * @param {HTMLElement} menu
 * @param {HTMLElement} opener
 * @param {{x?: number, y?: number}} at
 */
function placeMenu(menu, opener, at) {
  if (isPhone.matches) return;
  const box = opener.getBoundingClientRect();
  const [width, height] = [menu.offsetWidth, menu.offsetHeight];
  const x = at.x ?? (box.left + width > innerWidth - 8 ? box.right - width : box.left);
  let y = at.y ?? box.bottom + 4;
  if (y + height > innerHeight - 8) y = (at.y ?? box.top - 4) - height;
  menu.style.left = `${Math.max(8, Math.min(x, innerWidth - width - 8))}px`;
  menu.style.top = `${Math.max(8, Math.min(y, innerHeight - height - 8))}px`;
}

// --- Reactions -----------------------------------------------------------------------------------

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
 * Opens the picker next to what asked for it.
 * @param {HTMLElement} opener
 * @param {string} label
 * @param {(emoji: string) => void} choose
 */
export function openPicker(opener, label, choose) {
  openMenu(opener, label, [], {
    before: (close) => {
      const item = (/** @type {string} */ emoji) => h('button', {
        role: 'menuitem', class: 'emoji-item', tabindex: -1, 'aria-label': emoji,
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
    const { answer, error } = asked(() => store.actions.reactions(chatId, messageId));
    return h('div', { class: 'panel-body' }, error,
      h('ul', { class: 'people' }, () => answer.value?.map(({ user, name, emoji }) =>
        h('li', { class: 'person' }, () => avatar(user, name || personName(user), 'small'),
          h('bdi', { class: 'person-name' }, () => name || personName(user)),
          h('span', { class: 'emoji' }, emoji)))));
  });
}
