/**
 * The settings: appearance, notifications, sessions, password; for operators users and invites.
 */
import { h, match, settle, signal, when } from '../view.js';
import { invitePanel, linkView } from './invite.js';
import { openMenu } from './choose.js';
import {
  actionForm, applyTheme, avatar, confirmDialog, fail, field, formatTime, icon, iconButton,
  LANGUAGES, language, openPanel, saveSetting, setLanguage, setting, shortTime,
  showToast, store, t,
} from './kit.js';
import { asked, errorLine, liveQuery, personRow, searchField } from './lists.js';

/** @typedef {import('../types.js').User} User */

export function openSettings() {
  openPanel({ title: t('Settings'), class: 'tall' }, (close) => {
    const me = store.me.peek();
    if (!me) return null;
    return h('div', { class: 'panel-body' },
      h('div', { class: 'chat-about' }, avatar(me.id, me.name, 'large'),
        h('div', { class: 'chat-about-names' },
          h('bdi', { class: 'chat-about-title' }, me.name),
          h('p', { class: 'hint' }, [store.server.peek()?.name, me.operator && t('operator')]
            .filter(Boolean).join(' · '))),
        h('button', { class: 'button', onclick: () => logOut(close) }, t('Log out'))),
      looks(close),
      notifications(),
      fold('members', t('Sessions'), sessions),
      fold('lock', t('Password'), passwordChange),
      me.operator && fold('shield', t('Users'), users),
      me.operator && fold('invite', t('Invites'), () => invitePanel(0)),
      h('p', { class: 'hint about' }, store.server.peek()?.version ?? ''));
  });
}

/**
 * A section that is rendered when it is opened.
 * @param {Parameters<typeof icon>[0]} picture
 * @param {string} title
 * @param {() => import('../view.js').Child} render
 */
function fold(picture, title, render) {
  const isOpen = signal(false);
  return h('details', {
    class: 'fold', ontoggle: (/** @type {any} */ event) => (isOpen.value = event.target.open),
  }, h('summary', null, icon(picture), title), when(() => isOpen.value, render));
}

/** @param {() => void} close */
async function logOut(close) {
  const isWaiting = store.chats.peek().some((chat) => chat.lastMessage?.state === 'sending');
  const isSure = !isWaiting || await confirmDialog({
    title: t('Log out?'),
    text: t('Some messages are not sent yet. They and everything kept in this browser are removed.'),
    button: t('Log out'),
  });
  if (!isSure) return;
  close();
  await settle();
  history.replaceState({}, '', location.pathname);
  await store.actions.logout().catch(fail);
}

/** @param {() => void} close */
function looks(close) {
  const themes = [['', t('As the system')], ['light', t('Light')], ['dark', t('Dark')]];
  return h('div', { class: 'field-row' },
    h('div', { class: 'field' }, h('label', { for: 'language' }, t('Language')),
      h('select', {
        id: 'language',
        onchange: async (/** @type {any} */ event) => {
          saveSetting('language', event.target.value);
          // All texts are rendered again, also this dialog.
          close();
          await setLanguage(event.target.value);
          openSettings();
        },
      }, Object.entries(LANGUAGES).map(([code, { name }]) =>
        h('option', { value: code, lang: code, selected: code === language.peek() }, name)))),
    h('div', { class: 'field' }, h('label', { for: 'theme' }, t('Theme')),
      h('select', {
        id: 'theme',
        onchange: (/** @type {any} */ event) => {
          saveSetting('theme', event.target.value);
          applyTheme();
        },
      }, themes.map(([value, text]) =>
        h('option', { value, selected: value === setting('theme') }, text)))));
}

// --- Notifications ------------------------------------------------------------------------------

/** @param {string} text base64url without padding */
function bytesOf(text) {
  const plain = atob(text.replace(/-/g, '+').replace(/_/g, '/'));
  return Uint8Array.from(plain, (char) => char.charCodeAt(0));
}

/** The reason why pushes are not possible here; empty if they are. */
function whyNoPush() {
  if (!isSecureContext) return t('Notifications need an encrypted connection (https).');
  if (!store.server.peek()?.pushKey) return t('This server sends no notifications.');
  if (!('serviceWorker' in navigator) || !('PushManager' in window)) {
    return /iPhone|iPad/.test(navigator.userAgent)
      ? t('On an iPhone, add this page to the home screen first: Share, then “Add to Home Screen”.')
      : t('This browser has no notifications.');
  }
  if (Notification.permission === 'denied') {
    return t('Notifications are blocked for this page in the settings of the browser.');
  }
  return '';
}

function notifications() {
  const why = whyNoPush();
  const isOn = signal(false);
  const isBusy = signal(false);
  const subscription = async () =>
    (await navigator.serviceWorker.ready).pushManager.getSubscription();
  if (!why) subscription().then((found) => (isOn.value = found !== null), () => {});
  const toggle = async () => {
    isBusy.value = true;
    try {
      await (isOn.peek() ? turnOff(await subscription()) : turnOn());
      isOn.value = (await subscription()) !== null;
    } catch (error) {
      fail(error);
    }
    isBusy.value = false;
  };
  return h('div', { class: 'setting-row' },
    h('span', { class: 'setting-text' }, icon('bell'),
      h('span', { class: 'person-about' }, h('span', null, t('Notifications in this browser')),
        h('span', { class: 'person-note' }, () => why || (isOn.value
          ? t('On. Each chat has its own choice in its settings.')
          : t('Off. You get none while this page is closed.'))))),
    !why && h('button', { class: 'button', disabled: () => isBusy.value, onclick: toggle },
      () => (isOn.value ? t('Turn off') : t('Turn on'))));
}

async function turnOn() {
  if ((await Notification.requestPermission()) !== 'granted') {
    throw { code: '', text: t('The browser did not allow notifications.') };
  }
  const worker = await navigator.serviceWorker.ready;
  const made = await worker.pushManager.subscribe({
    userVisibleOnly: true,
    applicationServerKey: bytesOf(store.server.peek()?.pushKey ?? ''),
  });
  const key = (/** @type {PushEncryptionKeyName} */ name) =>
    new Uint8Array(made.getKey(name) ?? new ArrayBuffer(0));
  try {
    await store.actions.subscribePush({
      endpoint: made.endpoint, p256dh: key('p256dh'), auth: key('auth'),
    });
  } catch (error) {
    await made.unsubscribe();
    throw error;
  }
}

/** @param {PushSubscription | null} subscription */
async function turnOff(subscription) {
  await store.actions.subscribePush(null);
  await subscription?.unsubscribe();
}

// --- Sessions and password ----------------------------------------------------------------------

function sessions() {
  const { answer, error, load } = asked(store.actions.sessions);
  return h('div', null, error,
    h('ul', { class: 'people' }, () => answer.value?.sort((a, b) => Number(b.current) - Number(a.current)).map((session) => h('li', { class: 'person' },
      h('span', { class: 'person-about' },
        h('span', { class: 'person-name' }, session.current ? t('This browser') : session.address),
        h('span', { class: 'person-note' }, [
          session.current && session.address,
          session.attached && !session.current && t('connected now'),
          t('since {time}', { time: formatTime('day', session.created) }),
          !session.attached && t('last used {time}', { time: shortTime(session.used) }),
        ].filter(Boolean).join(' · '))),
      !session.current && h('button', {
        class: 'button small',
        'aria-label': t('End the session from {address}', { address: session.address }),
        onclick: () => store.actions.endSession(session.id).then(load, fail),
      }, t('End'))))));
}

function passwordChange() {
  return actionForm({ class: 'form' }, async (form) => {
    const values = new FormData(form);
    await store.actions.changePassword(String(values.get('old')), String(values.get('new')));
    form.reset();
    showToast(t('Your password is changed. Your other sessions have ended.'));
  }, (submit) => [
    field(t('Current password'), {
      name: 'old', type: 'password', required: true, autocomplete: 'current-password',
    }),
    field(t('New password'), {
      name: 'new', type: 'password', required: true, autocomplete: 'new-password',
      hint: t('At least 8 characters.'),
    }),
    h('div', { class: 'dialog-actions' }, submit(t('Change password'), '')),
  ]);
}

// --- For operators ------------------------------------------------------------------------------

function users() {
  const live = liveQuery(store.actions.findUsers);
  live.run();
  const reset = signal(/** @type {{name: string, link: string, expires: number} | null} */ (null));
  return h('div', null,
    match(() => reset.value, (made) => made && h('div', { class: 'note column' },
      h('p', null, t('Send this link to {name}. It sets a new password, once, until {time}.', {
        name: made.name, time: formatTime('full', made.expires),
      })), linkView(made.link))),
    searchField(t('Find a user'), (text) => {
      live.set(text);
      if (text === '') live.run();
    }),
    errorLine(live.error),
    h('ul', { class: 'people' }, () => live.results.value.map((user) =>
      h('li', null, userRow(user, reset, live.run)))));
}

/**
 * @param {User} user
 * @param {import('../view.js').Signal<{name: string, link: string, expires: number} | null>} reset
 * @param {() => Promise<void>} reload
 */
function userRow(user, reset, reload) {
  const about = [user.operator && t('operator'), user.bot && t('bot'), user.disabled && t('disabled')]
    .filter(Boolean).join(' · ');
  const isMe = user.id === store.me.peek()?.id;
  const isRemoved = /^deleted-\d/.test(user.name);
  return personRow(user, about, !isMe && !user.bot && !isRemoved && iconButton('more',
    t('More about {name}', { name: user.name }), (event) => openMenu(
      /** @type {HTMLElement} */ (event.currentTarget), user.name, [
        {
          label: t('Make a reset link'), icon: 'link',
          run: () => store.actions.resetPassword(user.id)
            .then((made) => (reset.value = { name: user.name, ...made }), fail),
        },
        {
          label: user.disabled ? t('Enable') : t('Disable'), icon: 'lock',
          class: user.disabled ? '' : 'danger',
          run: async () => {
            const isSure = user.disabled || await confirmDialog({
              title: t('Disable {name}?', { name: user.name }),
              text: t('They are logged out everywhere and cannot log in until you enable them.'),
              button: t('Disable'),
            });
            if (isSure) store.actions.setUserDisabled(user.id, !user.disabled).then(reload, fail);
          },
        },
      ]), { 'aria-haspopup': 'menu' }));
}

