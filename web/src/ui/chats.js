/**
 * The dialogs about chats: a new one, what can be set of one, and who is in it.
 */
import { computed, each, h, signal, when } from '../view.js';
import { avatarId, openChat, showList } from './app.js';
import { openMenu } from './choose.js';
import {
  actionForm, avatar, confirmDialog, fail, field, icon, iconButton, isTouch, openPanel,
  shortTime, showToast, store, t, tn,
} from './kit.js';
import { asked, errorLine, liveQuery, peopleField, personRow, searchField } from './lists.js';

/** @typedef {import('../types.js').Chat} Chat */
/** @typedef {import('../types.js').Member} Member */
/** @typedef {import('../types.js').User} User */

// --- A new chat, or one that is found ------------------------------------------------------------

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
    errorLine(live.error),
    when(() => live.isDone.value && live.query.value !== '' && live.results.value.length === 0
      && !live.error.value, () => h('p', { class: 'hint' }, t('Nothing is called that.'))));
}

/**
 * @param {User} user
 * @param {(id: number) => void} show
 */
function userHit(user, show) {
  return h('button', {
    class: 'row-button',
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
    h('button', { class: 'row-button', onclick: () => join().catch(fail) },
      h('div', { class: 'person' }, avatar(chat.id, chat.title, 'small'),
        h('span', { class: 'person-about' },
          h('bdi', { class: 'person-name' }, chat.title),
          h('span', { class: 'person-note' }, about)),
        chat.hasPassword && icon('lock'),
        h('span', { class: 'hint' }, chat.isMember ? '' : t('Join')))),
    when(() => asks.value, () => actionForm({ class: 'form inline' }, async (form) => {
      await store.actions.joinChat(chat.id, String(new FormData(form).get('password')));
      show(chat.id);
    }, (submit) => h('div', { class: 'link-row' },
      h('input', {
        type: 'password', name: 'password', required: true, autocomplete: 'off',
        'aria-label': t('Password of the chat'), placeholder: t('Password of the chat'),
        ref: (/** @type {HTMLElement} */ element) => setTimeout(() => element.focus(), 0),
      }),
      submit(t('Join'))))),
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
    }, (submit) => [
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
      h('div', { class: 'dialog-actions' }, submit(t('Create'))),
    ]));
}

/** @param {(id: number) => void} show */
function inviteField(show) {
  return h('details', { class: 'fold' },
    h('summary', null, icon('link'), t('I have an invite code')),
    actionForm({ class: 'form' }, async (form) => {
      const text = String(new FormData(form).get('code')).trim();
      show(await store.actions.useInvite(text.replace(/^.*#invite=/, '')));
    }, (submit) => h('div', { class: 'link-row' },
      h('input', {
        name: 'code', required: true, autocomplete: 'off',
        'aria-label': t('Invite code or link'), placeholder: t('Invite code or link'),
      }),
      submit(t('Join'), ''))));
}

// --- What can be set of a chat -------------------------------------------------------------------

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
        h('button', { class: 'button danger-text', onclick: () => leave(first, close) },
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
        if (!now || kind === 'direct') {
          if (now?.peer?.disabled) return t('disabled');
          return now?.peer?.online ? t('online') : '';
        }
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
      class: 'button danger-text',
      onclick: async () => {
        const title = chat.peek()?.title ?? '';
        const isSure = await confirmDialog({
          title: t('Delete “{title}”?', { title }),
          text: t('All its messages and files are gone, for everybody. This cannot be undone.'),
          button: t('Delete'),
        });
        if (!isSure) return;
        close();
        showList();
        await store.actions.deleteChat(id).catch(fail);
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
  }, (submit) => h('div', { class: 'save-row' }, field(label, props),
    submit(t('Save'), '', { 'aria-label': button })));
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
  close();
  showList();
  await store.actions.leaveChat(chat.id).catch(fail);
}

// --- Members: admins add, ban and appoint here ---------------------------------------------------

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
  const { answer: members, error, load } = asked(() => store.actions.members(chatId));
  const filter = signal('');
  const isAdmin = () => Boolean(chat.value?.isAdmin);
  const fits = (/** @type {Member} */ one) =>
    one.name.toLowerCase().includes(filter.value.trim().toLowerCase());
  const screen = { chatId, isAdmin, load, close };

  const list = h('ul', { class: 'people' });
  each(list, () => (members.value ?? []).filter((one) => !one.banned && fits(one)).slice(0, 200),
    (one) => one.id, (one) => h('li', null, () => memberRow(one.value, screen)));
  const banned = h('ul', { class: 'people' });
  each(banned, () => (members.value ?? []).filter((one) => one.banned && fits(one)),
    (one) => one.id, (one) => h('li', null, () => bannedRow(one.value, screen)));

  return h('div', { class: 'panel-body' },
    when(isAdmin, () => h('details', { class: 'fold' },
      h('summary', null, icon('plus'), t('Add a person')),
      peopleField(t('Find a person'), store.actions.findUsers, (user) => addButton(user, screen, members)))),
    when(() => (members.value?.length ?? 0) > 8, () =>
      searchField(t('Filter members'), (text) => (filter.value = text))),
    error,
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
  /** @type {import('./choose.js').MenuItem[]} */
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
    class: 'button small',
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
      class: 'button small', 'aria-label': t('Add {name}', { name: user.name }),
      onclick: () => store.actions.addMember(chatId, user.id).then(() => {
        showToast(t('{name} is now a member', { name: user.name }));
        load();
      }, fail),
    }, t('Add')));
}
