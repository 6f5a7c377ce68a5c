/**
 * The dialog with a chat's settings: notifications; for admins title, name, password, deletion.
 */
import { computed, h, when } from '../view.js';
import { avatarId, showList } from './app.js';
import {
  actionForm, avatar, confirmDialog, fail, field, icon, openPanel, showToast, store, t, tn,
} from './kit.js';

/** @typedef {import('../types.js').Chat} Chat */

/** @param {number} chatId */
export function openChatSettings(chatId) {
  openPanel({ title: t('About this chat') }, (close) => {
    const chat = computed(() => store.chats.value.find((one) => one.id === chatId));
    const first = chat.peek();
    if (!first) return null;
    return h('div', { class: 'panel-body' },
      chatAbout(chat),
      notifyChoice(first),
      when(() => chat.value?.isAdmin && first.kind === 'group', () => adminPart(chat, close)),
      first.kind === 'group' && h('div', { class: 'section' },
        h('button', { type: 'button', class: 'button danger-text', onclick: () => leave(first, close) },
          t('Leave chat'))));
  });
}

/** @param {import('../view.js').ReadonlySignal<Chat | undefined>} chat */
function chatAbout(chat) {
  const { kind, title } = /** @type {Chat} */ (chat.peek());
  return h('div', { class: 'chat-about' },
    avatar(avatarId(/** @type {Chat} */ (chat.peek())), title, 'large'),
    h('div', { class: 'chat-about-names' },
      h('bdi', { class: 'chat-about-title' }, () => chat.value?.title ?? title),
      h('p', { class: 'hint' }, () => {
        const now = chat.value;
        if (!now || kind === 'direct') return now?.peer?.online ? t('online') : '';
        return [now.name !== now.title && now.name, tn('{n} member', '{n} members', now.members),
          now.hasPassword && t('with a password'), now.isClosed && t('closed')]
          .filter(Boolean).join(' · ');
      })));
}

/** @param {Chat} chat */
function notifyChoice({ id, notify }) {
  const api = store.server.peek()?.api;
  if (!api || (api.major === 1 && api.minor < 1) || api.major === 0) return null;
  const choices = [[0, t('Everything')], [1, t('Mentions and answers to me')], [2, t('Nothing')]];
  return h('div', { class: 'field' }, h('label', { for: 'notify' }, t('Notify me of')),
    h('select', {
      id: 'notify',
      onchange: (/** @type {any} */ event) =>
        store.actions.setNotify(id, /** @type {0 | 1 | 2} */ (Number(event.target.value))).catch(fail),
    }, choices.map(([value, text]) =>
      h('option', { value, selected: value === notify }, String(text)))));
}

/**
 * @param {import('../view.js').ReadonlySignal<Chat | undefined>} chat
 * @param {() => void} close
 */
function adminPart(chat, close) {
  const { id, topic, name, hasPassword, isClosed } = /** @type {Chat} */ (chat.peek());
  const hasExtras = (store.server.peek()?.api.minor ?? 0) >= 1;
  return h('div', { class: 'section' },
    h('h3', { class: 'section-title' }, t('For admins')),
    saveForm(t('Title'), { name: 'value', value: topic, maxlength: 128, placeholder: name },
      t('Save title'), (value) => store.actions.setTitle(id, value)),
    saveForm(t('Name'), { name: 'value', value: name, maxlength: 64, required: true, spellcheck: 'false' },
      t('Save name'), (value) => store.actions.renameChat(id, value)),
    saveForm(hasPassword ? t('New password of the chat') : t('Password of the chat'), {
      name: 'value', type: 'password', autocomplete: 'new-password',
      hint: hasPassword ? t('Leave it empty to need none any more. Members stay.')
        : t('Asked of those who join; members stay.'),
    }, t('Save password'), (value) => store.actions.setChatPassword(id, value)),
    hasExtras && h('label', { class: 'check' }, h('input', {
      type: 'checkbox', checked: isClosed,
      onchange: (/** @type {any} */ event) => store.actions.setClosed(id, event.target.checked)
        .catch((error) => {
          event.target.checked = !event.target.checked;
          fail(error);
        }),
    }), h('span', null, t('Closed: only people who were invited or added find it'))),
    h('button', {
      type: 'button', class: 'button danger-text',
      onclick: async () => {
        const title = chat.peek()?.title ?? '';
        const isSure = await confirmDialog({
          title: t('Delete “{title}”?', { title }),
          text: t('All its messages and files are gone, for everybody. This cannot be undone.'),
          button: t('Delete'),
        });
        if (!isSure) return;
        await store.actions.deleteChat(id).then(() => {
          close();
          showList();
        }, fail);
      },
    }, icon('trash'), t('Delete chat')));
}

/**
 * A field with its own button.
 * @param {string} label
 * @param {Record<string, any>} props
 * @param {string} button
 * @param {(value: string) => Promise<void>} save
 */
function saveForm(label, props, button, save) {
  return actionForm({ class: 'form' }, async (form) => {
    await save(String(new FormData(form).get('value')).trim());
    showToast(t('Saved'));
  }, ({ isBusy }) => h('div', { class: 'save-row' }, field(label, props),
    h('button', { type: 'submit', class: 'button', 'aria-label': button, disabled: () => isBusy.value },
      t('Save'))));
}

/**
 * @param {Chat} chat
 * @param {() => void} close
 */
async function leave(chat, close) {
  const isSure = await confirmDialog({
    title: t('Leave “{title}”?', { title: chat.title }),
    text: chat.isClosed || chat.hasPassword
      ? t('To come back you need an invite or the password.')
      : t('You can join again while the chat is open to everybody.'),
    button: t('Leave'),
  });
  if (!isSure) return;
  await store.actions.leaveChat(chat.id).then(() => {
    close();
    showList();
  }, fail);
}
