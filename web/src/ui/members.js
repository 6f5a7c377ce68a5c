/**
 * The dialog with the members of a chat, where admins add, ban and appoint.
 */
import { computed, each, h, signal, when } from '../view.js';
import { openChat } from './app.js';
import {
  confirmDialog, explain, fail, icon, iconButton, openMenu, openPanel, shortTime, showToast, store,
  t, tn,
} from './kit.js';
import { peopleField, personRow } from './people.js';

/** @typedef {import('../types.js').Member} Member */
/** @typedef {import('../types.js').Chat} Chat */

/** @param {number} chatId */
export function openMembers(chatId) {
  openPanel({ title: t('Members'), class: 'tall' }, (close) => membersPanel(chatId, close));
}

/**
 * @param {number} chatId
 * @param {() => void} close
 */
function membersPanel(chatId, close) {
  const chat = computed(() => store.chats.value.find((one) => one.id === chatId));
  const members = signal(/** @type {Member[] | null} */ (null));
  const error = signal('');
  const filter = signal('');
  const load = () => store.actions.members(chatId).then((value) => (members.value = value),
    (failure) => (error.value = explain(failure)));
  load();
  const isAdmin = () => Boolean(chat.value?.isAdmin);
  const fits = (/** @type {Member} */ one) =>
    one.name.toLowerCase().includes(filter.value.trim().toLowerCase());
  const screen = { chatId, isAdmin, load, close };

  const list = h('ul', { class: 'people' });
  each(list, () => (members.value ?? []).filter((one) => !one.banned && fits(one)),
    (one) => one.id, (one) => h('li', null, () => memberRow(one.value, screen)));
  const banned = h('ul', { class: 'people' });
  each(banned, () => (members.value ?? []).filter((one) => one.banned && fits(one)),
    (one) => one.id, (one) => h('li', null, () => bannedRow(one.value, screen)));

  return h('div', { class: 'panel-body' },
    when(isAdmin, () => h('details', { class: 'fold' },
      h('summary', null, icon('plus'), t('Add a person')),
      peopleField(t('Find a person'), store.actions.findUsers, (user) => addButton(user, screen, members)))),
    when(() => (members.value?.length ?? 0) > 8, () => h('div', { class: 'field' }, h('input', {
      type: 'search', 'aria-label': t('Filter members'), placeholder: t('Filter members'),
      autocomplete: 'off',
      oninput: (/** @type {any} */ event) => (filter.value = event.target.value),
    }))),
    () => error.value && h('p', { class: 'error' }, error.value),
    h('p', { class: 'hint count' }, () => {
      const count = (members.value ?? []).filter((one) => !one.banned).length;
      return members.value ? tn('{n} member', '{n} members', count) : '';
    }),
    list,
    when(() => members.value?.some((one) => one.banned), () => [
      h('h3', { class: 'section-title' }, t('Banned')), banned]));
}

/** @typedef {{chatId: number, isAdmin: () => boolean, load: () => Promise<any>, close: () => void}} Screen */

/**
 * @param {Member} member
 * @param {Screen} screen
 */
function memberRow(member, screen) {
  const isMe = member.id === store.me.peek()?.id;
  const about = [isMe && t('you'), member.admin && t('admin'), member.online ? t('online')
    : member.seen > 0 && !isMe && t('was here {time}', { time: shortTime(member.seen) })]
    .filter(Boolean).join(' · ');
  return personRow(member, about, !isMe && iconButton('more',
    t('More about {name}', { name: member.name }),
    (event) => openMenu(/** @type {HTMLElement} */ (event.currentTarget), member.name,
      memberItems(member, screen)), { 'aria-haspopup': 'menu' }));
}

/**
 * @param {Member} member
 * @param {Screen} screen
 */
function memberItems(member, { chatId, isAdmin, load, close }) {
  const change = (/** @type {Promise<void>} */ done) => done.then(load, fail);
  /** @type {import('./kit.js').MenuItem[]} */
  const items = [{
    label: t('Write to {name}', { name: member.name }), icon: 'chat',
    run: () => store.actions.startChat(member.id).then((id) => {
      close();
      openChat(id);
    }, fail),
  }];
  if (!isAdmin()) return items;
  items.push({
    label: member.admin ? t('Take admin rights away') : t('Make admin'), icon: 'shield',
    run: () => change(store.actions.setAdmin(chatId, member.id, !member.admin)),
  }, {
    label: t('Remove and ban'), icon: 'close', class: 'danger',
    run: async () => {
      const isSure = await confirmDialog({
        title: t('Ban {name}?', { name: member.name }),
        text: t('They leave the chat at once and cannot come back until you allow it.'),
        button: t('Ban'),
      });
      if (isSure) change(store.actions.setBan(chatId, member.id, true));
    },
  });
  return items;
}

/**
 * @param {Member} member
 * @param {Screen} screen
 */
function bannedRow(member, { chatId, load }) {
  return personRow(member, t('banned'), h('button', {
    type: 'button', class: 'button small',
    onclick: () => store.actions.setBan(chatId, member.id, false).then(load, fail),
  }, t('Allow again')));
}

/**
 * @param {import('../types.js').User} user
 * @param {Screen} screen
 * @param {import('../view.js').Signal<Member[] | null>} members
 */
function addButton(user, { chatId, load }, members) {
  return () => (members.value?.some((one) => one.id === user.id && !one.banned)
    ? h('span', { class: 'hint' }, t('is a member'))
    : h('button', {
      type: 'button', class: 'button small', 'aria-label': t('Add {name}', { name: user.name }),
      onclick: () => store.actions.addMember(chatId, user.id).then(() => {
        showToast(t('{name} is now a member', { name: user.name }));
        load();
      }, fail),
    }, t('Add')));
}
