/**
 * The dialog that creates a chat, or finds a chat or a user.
 */
import { each, h, signal, when } from '../view.js';
import { openChat } from './app.js';
import { actionForm, avatar, fail, field, icon, isTouch, openPanel, store, t, tn } from './kit.js';
import { liveQuery, personRow } from './people.js';

/** @typedef {import('../types.js').Chat} Chat */
/** @typedef {import('../types.js').User} User */

export function openNewChat() {
  openPanel({ title: t('New chat'), class: 'tall' }, (close) => {
    /** @param {number} id */
    const show = (id) => {
      close();
      // The dialog restores the focus first; the chat takes it afterwards.
      setTimeout(() => openChat(id), 0);
    };
    return h('div', { class: 'panel-body' }, finder(show), creator(show), inviteField(show));
  });
}

/** @param {(id: number) => void} show */
function finder(show) {
  const live = liveQuery(async (query) => {
    const [chats, users] = await Promise.all([
      store.actions.findChats(query),
      store.actions.findUsers(query).catch(() => /** @type {User[]} */ ([])),
    ]);
    const me = store.me.peek()?.id;
    return [
      ...users.filter((user) => user.id !== me && !user.bot).slice(0, 20)
        .map((user) => ({ key: `user ${user.id}`, user, chat: null })),
      ...chats.slice(0, 30).map((chat) => ({ key: `chat ${chat.id}`, user: null, chat })),
    ];
  });
  const list = h('ul', { class: 'people' });
  each(list, () => live.results.value, (hit) => hit.key, (hit) => {
    const { user, chat } = hit.peek();
    return h('li', null, user ? userHit(user, show) : chatHit(/** @type {Chat} */ (chat), show));
  });
  return h('section', null,
    field(t('Find a chat or person'), {
      type: 'text', autofocus: !isTouch.matches, enterkeyhint: 'search',
      oninput: (/** @type {any} */ event) => live.set(event.target.value),
    }),
    list,
    when(() => live.error.value, () => h('p', { class: 'error' }, () => live.error.value)),
    when(() => live.isDone.value && live.query.value !== '' && live.results.value.length === 0
      && !live.error.value, () => h('p', { class: 'hint' }, t('Nothing is called that.'))));
}

/**
 * @param {User} user
 * @param {(id: number) => void} show
 */
function userHit(user, show) {
  return h('button', {
    type: 'button', class: 'row-button',
    onclick: () => store.actions.startChat(user.id).then(show, fail),
  }, personRow(user, user.online ? t('online') : t('person')));
}

/**
 * @param {Chat} chat
 * @param {(id: number) => void} show
 */
function chatHit(chat, show) {
  const asks = signal(false);
  const about = [chat.title !== chat.name && chat.name,
    tn('{n} member', '{n} members', chat.members)].filter(Boolean).join(' · ');
  const join = async () => {
    if (chat.isMember) return show(chat.id);
    if (chat.hasPassword) return void (asks.value = true);
    await store.actions.joinChat(chat.id);
    return show(chat.id);
  };
  return [
    h('button', { type: 'button', class: 'row-button', onclick: () => join().catch(fail) },
      h('div', { class: 'person' }, avatar(chat.id, chat.title, 'small'),
        h('span', { class: 'person-about' },
          h('bdi', { class: 'person-name' }, chat.title),
          h('span', { class: 'person-note' }, about)),
        chat.hasPassword && icon('lock'),
        h('span', { class: 'hint' }, chat.isMember ? '' : t('Join')))),
    when(() => asks.value, () => actionForm({ class: 'form inline' }, async (form) => {
      await store.actions.joinChat(chat.id, String(new FormData(form).get('password')));
      show(chat.id);
    }, ({ isBusy }) => h('div', { class: 'link-row' },
      h('input', {
        type: 'password', name: 'password', required: true, autocomplete: 'off',
        'aria-label': t('Password of the chat'), placeholder: t('Password of the chat'),
        ref: (/** @type {HTMLElement} */ element) => setTimeout(() => element.focus(), 0),
      }),
      h('button', { type: 'submit', class: 'button primary', disabled: () => isBusy.value },
        t('Join'))))),
  ];
}

/** @param {(id: number) => void} show */
function creator(show) {
  return h('section', null, h('h3', { class: 'section-title' }, t('Or make a new one')),
    actionForm({ class: 'form' }, async (form) => {
      const values = new FormData(form);
      const id = await store.actions.createChat(String(values.get('name')).trim(),
        String(values.get('password')), values.get('closed') === 'on');
      show(id);
    }, ({ isBusy }) => [
      field(t('Chat name'), {
        name: 'name', required: true, maxlength: 64,
        hint: t('Letters, digits, “_”, “-” and “.”; you can give it a title with spaces later.'),
      }),
      h('details', { class: 'fold' },
        h('summary', null, icon('lock'), t('Who can join')),
        field(t('Password of the chat'), {
          name: 'password', type: 'password', autocomplete: 'new-password',
          hint: t('Without one, everybody on this server can join.'),
        }),
        h('label', { class: 'check' }, h('input', { type: 'checkbox', name: 'closed' }),
          h('span', null, t('Closed: only people who were invited or added find it')))),
      h('div', { class: 'dialog-actions' }, h('button', {
        type: 'submit', class: 'button primary', disabled: () => isBusy.value,
      }, t('Create'))),
    ]));
}

/** @param {(id: number) => void} show */
function inviteField(show) {
  return h('details', { class: 'fold' },
    h('summary', null, icon('link'), t('I have an invite code')),
    actionForm({ class: 'form' }, async (form) => {
      const text = String(new FormData(form).get('code')).trim();
      show(await store.actions.useInvite(text.replace(/^.*#invite=/, '')));
    }, ({ isBusy }) => h('div', { class: 'link-row' },
      h('input', {
        name: 'code', required: true, autocomplete: 'off',
        'aria-label': t('Invite code or link'), placeholder: t('Invite code or link'),
      }),
      h('button', { type: 'submit', class: 'button', disabled: () => isBusy.value }, t('Join')))));
}

