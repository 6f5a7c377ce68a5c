/**
 * The dialog that creates invite links, as text and as QR codes.
 */
import { h, match, signal, when } from '../view.js';
import { actionForm, copyText, fail, formatTime, icon, openPanel, store, t, tn } from './kit.js';
import { asked } from './lists.js';

/** @typedef {import('../types.js').Invite} Invite */

/** @param {number} chatId 0: an invite to the server alone */
export function openInvite(chatId) {
  openPanel({ title: t('Invite') }, () => invitePanel(chatId));
}

/**
 * Creates a link. If the server does not allow it to register users, it is for existing ones.
 * @param {{chat: number, uses: number, days: number}} what
 * @param {boolean} registers
 * @returns {Promise<{link: string, isForMembers: boolean}>}
 */
export async function makeLink(what, registers) {
  try {
    const { link } = await store.actions.createInvite({ ...what, registers });
    return { link, isForMembers: false };
  } catch (error) {
    const { code } = /** @type {import('../types.js').Failure} */ (error);
    if (code !== 'forbidden' || !registers || what.chat === 0) throw error;
    const { link } = await store.actions.createInvite({ ...what, registers: false });
    return { link, isForMembers: store.server.peek()?.registration !== 'open' };
  }
}

/**
 * @param {number} chatId
 */
export function invitePanel(chatId) {
  const chat = store.chats.peek().find((one) => one.id === chatId);
  if (chat && !chat.isAdmin) {
    return h('div', { class: 'panel-body' }, h('p', { class: 'dialog-text' }, chat.isClosed
      ? t('Ask an admin of this chat: they add people and make invite links.')
      : t('Ask an admin of this chat for an invite link, or let people find the chat by its name: {name}', { name: chat.name })));
  }
  const link = signal('');
  const listed = signal(0);
  const isForMembers = signal(false);
  return h('div', { class: 'panel-body' },
    h('p', { class: 'dialog-text' }, chat
      ? t('Anyone who opens the link joins “{name}”.', { name: chat.title })
      : t('Anyone who opens the link can make an account here.')),
    match(() => link.value, (text) => text && linkView(text)),
    when(() => isForMembers.value, membersNote),
    actionForm({ class: 'form' }, async (form) => {
      const values = new FormData(form);
      const what = { chat: chatId, uses: Number(values.get('uses')), days: Number(values.get('days')) };
      const registers = chatId === 0 || values.get('registers') === 'on';
      const made = await makeLink(what, registers);
      isForMembers.value = made.isForMembers;
      link.value = made.link;
      listed.value += 1;
    }, (submit) => [
      chatId !== 0 && h('label', { class: 'check' },
        h('input', { type: 'checkbox', name: 'registers', checked: true }),
        h('span', null, t('New people can make an account with it'))),
      h('div', { class: 'field-row' },
        choice(t('Good for'), 'uses', [1, 5, 25, 100],
          (n) => tn('{n} person', '{n} people', n), 25),
        choice(t('Until it expires'), 'days', [1, 7, 30, 365], (n) => tn('{n} day', '{n} days', n), 7)),
      h('div', { class: 'dialog-actions' }, submit(t('Create link'), '', {
        class: () => `button ${link.value ? '' : 'primary'}`, autofocus: true,
      })),
    ]),
    inviteList(chatId, listed));
}

/** The note for a link that does not register. */
export function membersNote() {
  return h('p', { class: 'note' }, icon('alert'), h('span', null,
    store.server.peek()?.registration === 'closed'
      ? t('This link is for people who have an account here. For links that make accounts, start the server with --registration invite; or make an account with “vestnik user add NAME”.')
      : t('This link is for people who have an account here. Only operators make links for new people.')));
}

/**
 * @param {string} label
 * @param {string} name
 * @param {number[]} values
 * @param {(n: number) => string} words
 * @param {number} chosen
 */
function choice(label, name, values, words, chosen) {
  const id = `choice-${name}`;
  return h('div', { class: 'field' }, h('label', { for: id }, label),
    h('select', { id, name }, values.map((n) =>
      h('option', { value: n, selected: n === chosen }, words(n)))));
}

/**
 * A link to share: as text, as a QR code, and by the system's share dialog if there is one.
 * @param {string} text
 */
export function linkView(text) {
  const code = h('div', { class: 'qr' });
  import('../qr.js').then((qr) => code.append(qrImage(qr.encode(text)))).catch(() => code.remove());
  return h('div', { class: 'link-view' },
    code,
    h('div', { class: 'field' },
      h('label', { for: 'invite-link' }, t('Link')),
      h('div', { class: 'link-row' },
        h('input', {
          id: 'invite-link', readOnly: true, value: text,
          onfocus: (/** @type {any} */ event) => event.target.select(),
        }),
        h('button', { class: 'button primary', onclick: () => copyText(text) },
          icon('copy'), t('Copy')))),
    'share' in navigator && h('button', {
      class: 'button',
      onclick: () => navigator.share({ url: text }).catch(() => {}),
    }, t('Share…')));
}

/**
 * @param {boolean[][]} modules rows of the code; true is dark
 */
function qrImage(modules) {
  const size = modules.length + 8;
  let path = '';
  modules.forEach((row, y) => row.forEach((isDark, x) => {
    if (isDark) path += `M${x + 4} ${y + 4}h1v1h-1z`;
  }));
  return h('svg', { viewBox: `0 0 ${size} ${size}`, role: 'img', 'aria-label': t('QR code') },
    h('rect', { width: size, height: size, fill: '#fff' }), h('path', { d: path, fill: '#000' }));
}

/**
 * The valid invites.
 * @param {number} chatId
 * @param {import('../view.js').Signal<number>} listed rises when there is a new one
 */
function inviteList(chatId, listed) {
  const { answer: invites, error, load } = asked(() => store.actions.invites(chatId));
  return h('div', null,
    match(() => listed.value, (count) => void (count && load())),
    error,
    when(() => invites.value?.length, () => [
      h('h3', { class: 'section-title' }, t('Links that are still good')),
      h('ul', { class: 'people' }, () => invites.value?.map((invite) => h('li', { class: 'person' },
        h('span', { class: 'person-about' },
          h('span', { class: 'person-name' }, `${invite.hint}…`),
          h('span', { class: 'person-note' }, inviteAbout(invite))),
        h('button', {
          class: 'button small', 'aria-label': t('End {hint}', { hint: invite.hint }),
          onclick: () => store.actions.endInvite(invite.hint).then(load, fail),
        }, t('End')))))]));
}

/** @param {Invite} invite */
function inviteAbout({ usesLeft, expires, creatorName, chat, registers }) {
  return [
    tn('{n} use left', '{n} uses left', usesLeft),
    t('until {time}', { time: formatTime('day', expires) }),
    registers && t('with an account'),
    chat !== 0 && store.chats.peek().find((one) => one.id === chat)?.title,
    creatorName && t('by {name}', { name: creatorName }),
  ].filter(Boolean).join(' · ');
}
