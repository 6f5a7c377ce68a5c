/**
 * The dialog that searches messages, in one chat or in all.
 */
import { each, h, signal, when } from '../view.js';
import { openChat } from './app.js';
import { jumpIn } from './chat.js';
import { avatar, hue, openPanel, shortTime, store, t } from './kit.js';
import { liveQuery, personName } from './people.js';

/** @typedef {import('../types.js').SearchHit} SearchHit */

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
      h('div', { class: 'field' }, h('input', {
        type: 'search', 'aria-label': t('Search'), placeholder: t('Search messages'),
        autocomplete: 'off', autofocus: true, enterkeyhint: 'search',
        oninput: (/** @type {any} */ event) => live.set(event.target.value),
        onkeydown: (/** @type {any} */ event) => {
          if (event.key === 'Enter' && live.query.peek() !== '') live.run();
        },
      })),
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
        when(() => live.error.value, () => h('p', { class: 'error' }, () => live.error.value)),
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
    type: 'button', class: 'hit',
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
