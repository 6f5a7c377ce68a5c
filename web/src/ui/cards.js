/**
 * The screens without a session: log in, register, set a new password, and the first steps on a new
 * server.
 */
import { h, match, mount, signal, when } from '../view.js';
import { beginSteps, openChat } from './app.js';
import { actionForm, field, icon, LANGUAGES, language, saveSetting, setLanguage, store, t } from './kit.js';

/** @param {import('../types.js').Phase} phase */
export function card(phase) {
  /** @type {Partial<Record<import('../types.js').Phase, () => any>>} */
  const cards = { login: loginCard, register: registerCard, reset: resetCard, welcome: welcomeCard };
  return [
    h('main', { class: 'card' }, cards[phase]?.()),
    h('footer', { class: 'card-foot' },
      when(() => !isSecureContext, () => h('p', null, icon('alert'),
        t('This connection is not encrypted. Without https there are no notifications and no offline use.'))),
      h('p', { class: 'languages' }, Object.entries(LANGUAGES).map(([code, { name }]) => h('button', {
        class: 'link', lang: code,
        'aria-current': () => (language.value === code ? 'true' : null),
        onclick: () => {
          saveSetting('language', code);
          setLanguage(code);
        },
      }, name)))),
  ];
}

/** @param {string} title @param {import('../view.js').Child} [about] */
function cardHead(title, about) {
  return [
    h('div', { class: 'mark', 'aria-hidden': 'true' }, icon('chat')),
    h('h1', null, title),
    about && h('p', { class: 'card-about' }, about),
  ];
}

const serverName = () => store.server.value?.name || 'Vestnik';

/**
 * @param {string} label
 * @param {boolean} isNew
 */
function passwordField(label, isNew) {
  return field(label, {
    name: 'password', type: 'password', required: true,
    autocomplete: isNew ? 'new-password' : 'current-password',
    hint: isNew ? t('At least 8 characters.') : undefined,
  });
}

function loginCard() {
  const { login, why, invite } = store.form.peek();
  return [
    cardHead(t('Log in'), serverName),
    invite && h('p', { class: 'note' }, icon('invite'),
      h('span', null, t('You were invited. Log in to join.'), ' ',
        when(() => store.server.value?.registration === 'closed', () =>
          t('If you have no account yet, ask the person who sent the link for one: this server makes none by itself.')))),
    why === 'ended' && h('p', { class: 'note' }, icon('alert'),
      h('span', null, t('Your session was ended. What you wrote is kept: log in to go on.'))),
    why === 'reset-done' && h('p', { class: 'note' }, icon('check'),
      h('span', null, t('Your new password is set. Log in with it.'))),
    actionForm({ class: 'form' }, async (form) => {
      const values = new FormData(form);
      await store.actions.login(String(values.get('name')).trim(), String(values.get('password')));
    }, (submit) => [
      field(t('Name'), {
        name: 'name', required: true, value: login ?? '', autocomplete: 'username',
        autocapitalize: 'none', spellcheck: 'false', autofocus: !login,
      }),
      passwordField(t('Password'), false),
      submit(t('Log in'), 'primary wide'),
    ]),
    when(() => store.server.value?.registration !== 'closed', () => h('button', {
      class: 'link switch', onclick: () => store.actions.showForm('register'),
    }, t('Create an account'))),
  ];
}

function registerCard() {
  const { invite } = store.form.peek();
  return [
    cardHead(t('Welcome'), invite
      ? t('You were invited. Choose a name and a password, and you are in.') : serverName),
    actionForm({ class: 'form' }, async (form) => {
      const values = new FormData(form);
      await store.actions.register(String(values.get('name')).trim(),
        String(values.get('password')), String(values.get('invite') ?? '').trim() || undefined);
    }, (submit) => [
      field(t('Name'), {
        name: 'name', required: true, autocomplete: 'username', autocapitalize: 'none',
        spellcheck: 'false', autofocus: true, hint: t('Others see it. Letters, digits, “_”, “-” and “.”'),
      }),
      passwordField(t('Password'), true),
      field(t('Invite code'), {
        name: 'invite', value: invite ?? '', spellcheck: 'false', autocapitalize: 'none',
        required: () => store.server.value?.registration === 'invite',
        hint: store.server.value?.registration === 'open' && !invite ? t('Only if you got one.') : '',
      }),
      submit(t('Register'), 'primary wide'),
    ]),
    h('button', {
      class: 'link switch', onclick: () => store.actions.showForm('login'),
    }, t('I have an account')),
  ];
}

function resetCard() {
  const { login, code } = store.form.peek();
  return [
    cardHead(t('New password'), t('For {name}. You are logged out everywhere else.', { name: login ?? '' })),
    actionForm({ class: 'form' }, async (form) => {
      const values = new FormData(form);
      await store.actions.setPassword(login ?? '', code ?? '', String(values.get('password')));
    }, (submit) => [
      // Password managers need the user name next to the password.
      h('input', { type: 'text', autocomplete: 'username', value: login ?? '', hidden: true }),
      passwordField(t('New password'), true),
      submit(t('Set password'), 'primary wide'),
    ]),
    h('button', {
      class: 'link switch', onclick: () => store.actions.showForm('login'),
    }, t('Log in')),
  ];
}

function welcomeCard() {
  return [
    cardHead(t('Welcome'), t('This server is new: nobody is here yet.')),
    h('p', { class: 'dialog-text' },
      t('Open the link that the server printed when it was started. It makes the first account, which runs the server.')),
    h('button', {
      class: 'link switch', onclick: () => store.actions.showForm('register'),
    }, t('Create an account')),
  ];
}

// --- The first steps ----------------------------------------------------------------------------

/** 1: name the first chat, 2: send its link; 0: done. */
const firstStep = signal(1);
let firstChat = 0;
const firstLink = signal('');
let isLinkForMembers = false;

/** The first steps for the operator of a new server. */
export function firstSteps() {
  return h('section', { class: 'steps', 'aria-label': t('First steps') },
    h('h2', null, t('Welcome to your server')),
    h('ol', null,
      step(0, t('Make your account')),
      step(1, t('Name your first chat'), nameStep),
      step(2, t('Send the link to others'), linkStep)));
}

/**
 * @param {number} number
 * @param {string} title
 * @param {() => any} [body]
 */
function step(number, title, body) {
  return h('li', {
    class: () => (firstStep.value > number ? 'done' : firstStep.value === number ? 'now' : ''),
    'aria-current': () => (firstStep.value === number ? 'step' : null),
  },
  h('span', { class: 'step-mark' }, () => (firstStep.value > number ? icon('check') : number + 1)),
  h('div', { class: 'step-body' }, h('h3', null, title),
    when(() => firstStep.value === number, () => body?.())));
}

function nameStep() {
  return actionForm({ class: 'form' }, async (form) => {
    beginSteps();
    firstChat = await store.actions.createChat(String(new FormData(form).get('name')).trim());
    firstStep.value = 2;
    const { makeLink } = await import('./invite.js');
    const made = await makeLink({ chat: firstChat, uses: 25, days: 7 }, true);
    isLinkForMembers = made.isForMembers;
    firstLink.value = made.link;
  }, (submit) => [
    field(t('Name of your first chat'), { name: 'name', required: true, placeholder: t('family') }),
    submit(t('Continue')),
  ]);
}

function linkStep() {
  const place = h('div', null);
  import('./invite.js').then((it) => mount(place, () =>
    match(() => firstLink.value, (link) => link && [
      it.linkView(link), isLinkForMembers && it.membersNote()])));
  return [place, h('div', { class: 'dialog-actions' }, h('button', {
    class: 'button primary',
    onclick: () => {
      firstStep.value = 0;
      openChat(firstChat);
    },
  }, t('Open the chat')))];
}
