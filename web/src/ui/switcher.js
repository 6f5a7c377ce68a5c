/**
 * The dialog that switches to another chat by name, and the list of keys.
 */
import { each, h, openDialog, signal } from '../view.js';
import { avatarId, openChat } from './app.js';
import { avatar, openPanel, store, t } from './kit.js';

const SHOWN_MAX = 9;

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
      return chats.sort((a, b) => starts(a) - starts(b)).slice(0, SHOWN_MAX);
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
      () => chat.value.unread > 0 && h('span', { class: 'badge' }, String(chat.value.unread)))));
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
