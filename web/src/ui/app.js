/**
 * The shell of the client: the list of chats, the choice of the screen, addresses and keys.
 *
 * Wide windows show the list and a chat side by side; narrow ones show one of them, with the chat
 * one step of the browser's history above the list. The address is `#chat=ID` while one is open.
 */
import {
  batch, closeLayers, computed, each, effect, h, layerCount, match, mount, settle, signal,
  untracked, when,
} from '../view.js';
import {
  applyTheme, avatar, fail, icon, iconButton, isComposing, isMissing, isPhone, language,
  plain, setLanguage, setStore, shortTime, showToast, store, t, tn, toast, watchDay, zone,
} from './kit.js';

/** @typedef {import('../types.js').Chat} Chat */

/** Text of the live region, which screen readers speak politely. */
const announced = signal('');

/** @param {string} text */
export function announce(text) {
  announced.value = '';
  setTimeout(() => (announced.value = text), 50);
}

/**
 * Shows the client in the page.
 * @param {import('../types.js').Store} value
 */
export async function start(value) {
  setStore(value);
  applyTheme();
  await setLanguage();
  mount(document.body, () => [
    match(() => language.value + zone.value, () => [
      match(() => store.phase.value, screen),
      connectionLine(),
      bottomLines(),
    ]),
    h('div', { class: 'sr-only', 'aria-live': 'polite' }, () => announced.value),
  ]);
  document.getElementById('start')?.remove();
  effect(() => {
    const unread = store.phase.value === 'ready'
      ? store.chats.value.filter((chat) => chat.unread > 0).length : 0;
    document.title = (unread > 0 ? `(${unread}) ` : '') + titleOf();
  });
  effect(() => {
    if (store.phase.value !== 'ready') return;
    untracked(() => routeFromAddress(true));
  });
  effect(() => {
    if (store.phase.value !== 'ready' || store.open.value !== 0) isNewServer.value = false;
    else if (store.chats.value.length > 0) {
      // After a login the chats come later than the first screen.
      if (!hasBegun) isNewServer.value = false;
    } else if (store.users.value.size <= 1) {
      isNewServer.value = Boolean(store.me.value?.operator);
    }
  });
  effect(() => {
    // The end of the session closes its dialogs.
    if (store.phase.value !== 'ready') closeLayers();
  });
  effect(leaveGoneChat);
  addEventListener('popstate', onBack);
  // A reload closed what was open.
  settle();
  // Files that miss a chat would be opened in place of the page.
  addEventListener('dragover', keepFilesOut);
  addEventListener('drop', keepFilesOut);
  addEventListener('unhandledrejection', onFailedImport);
  addEventListener('keydown', onKey);
  addEventListener('keydown', clearSearch, true);
  fitToKeyboard();
  watchDay();
}

/** Back closes what was opened last, or leads to the screen before. */
function onBack() {
  if (store.phase.peek() !== 'ready') return;
  // What was opened on a screen does not stay over another.
  closeLayers(chatOf(location.hash) === store.open.peek() ? layerCount() : 0);
  routeFromAddress();
  settle();
}

/** @param {DragEvent} event */
function keepFilesOut(event) {
  if (event.defaultPrevented || !event.dataTransfer?.types.includes('Files')) return;
  event.preventDefault();
  event.dataTransfer.dropEffect = 'none';
}

function titleOf() {
  const open = openChat_.value;
  return open ? `${plain(open.title)} · ${store.server.value?.name || 'Vestnik'}`
    : store.server.value?.name || 'Vestnik';
}

/** The chat that is open, as the list has it. */
const openChat_ = computed(() => store.phase.value === 'ready'
  ? store.chats.value.find((chat) => chat.id === store.open.value) ?? null : null);

/** The chat that was shown last, to detect that it is gone. */
let shownChat = 0;

/** Returns to the list when others deleted the open chat or ended the membership. */
function leaveGoneChat() {
  const chat = openChat_.value;
  const isGone = !chat && shownChat !== 0 && shownChat === store.open.peek();
  shownChat = chat?.id ?? 0;
  if (!isGone) return;
  untracked(() => {
    showList();
    // A link that resets a password hides the chats, too.
    if (store.phase.peek() === 'ready') showToast(t('You are not a member of this chat.'));
  });
}

/** @param {import('../types.js').Phase} phase */
function screen(phase) {
  if (phase === 'starting') return null;
  if (phase === 'ready') return main();
  const place = h('div', { class: 'card-screen' });
  import('./cards.js').then(({ card }) => mount(place, () => card(phase)));
  return place;
}

// --- Lines about the state ----------------------------------------------------------------------

function connectionLine() {
  const text = () => {
    if (store.phase.value === 'starting') return '';
    if (store.connection.value === 'connecting') return t('Connecting…');
    if (store.connection.value === 'offline') {
      return t('Offline: messages will be sent when you are back');
    }
    return '';
  };
  return h('div', { class: () => `connection ${text() && store.connection.value}` },
    h('div', { role: 'status' }, text),
    when(() => store.connection.value === 'offline' && text(), () => h('button', {
      class: 'link', onclick: () => store.actions.reconnect(),
    }, t('Reconnect'))));
}

/**
 * A button does nothing when its part of the page does not load.
 * @param {PromiseRejectionEvent} event
 */
const onFailedImport = ({ reason }) => isMissing(reason) && fail(reason);

/** On a phone the notice is shown on the list only: in a chat it would cover the newest message. */
const hasUpdate = () => store.update.value === 'old'
  || (store.update.value && !(isNarrow.value && store.open.value !== 0));

/** Time for which a notice is shown: notices are longer than toasts. */
const NOTICE_MS = 15_000;

function bottomLines() {
  const lines = h('div', { class: 'bottom-lines', 'aria-live': 'polite', popover: 'manual' },
    when(hasUpdate, () => h('div', { class: 'toast' },
      h('span', null, t('There is a new version.')),
      h('button', { class: 'link', onclick: () => store.actions.reload() }, t('Reload')))),
    match(() => store.notice.value, (notice) => notice && h('div', { class: 'toast' },
      h('span', null, t(notice)),
      iconButton('close', t('Close'), () => (store.notice.value = null)))),
    match(() => toast.value, (text) => text && h('div', { class: 'toast' }, text)));
  effect(() => {
    if (store.notice.value === null) return undefined;
    const timer = setTimeout(() => (store.notice.value = null), NOTICE_MS);
    return () => clearTimeout(timer);
  });
  effect(() => {
    const isShown = Boolean(toast.value || store.notice.value || hasUpdate());
    // Showing the popover again puts it above open dialogs.
    queueMicrotask(() => {
      if (!lines.isConnected || !lines.showPopover) return;
      lines.hidePopover();
      if (isShown) lines.showPopover();
    });
  });
  return lines;
}

// --- Which chat is open -------------------------------------------------------------------------

/** @param {string} hash */
const chatOf = (hash) => Number(/^#chat=(\d{1,10})$/.exec(hash)?.[1] ?? 0);

/** Follows the address, after Back and at the start. */
function routeFromAddress(isStart = false) {
  const id = chatOf(location.hash);
  if (id === store.open.peek()) return;
  if (id === 0) {
    store.actions.closeChat();
    return;
  }
  if (history.state?.above !== true && isStart && isPhone.matches) {
    // Opened by a link: put the list below in the history, so that Back leads there.
    history.replaceState({}, '', location.pathname);
    history.pushState({ above: true }, '', `#chat=${id}`);
  }
  const open = () => store.actions.openChat(id);
  open().catch(async (error) => {
    // At the start the page is there before the connection.
    if (error?.code !== 'offline') throw error;
    await store.actions.online();
    if (store.open.peek() === id) await open();
  }).catch((error) => {
    fail(error);
    showList();
  });
}

/**
 * Opens a chat, with a step of the history for it.
 * @param {number} id
 */
export async function openChat(id) {
  closeLayers();
  await settle();
  if (id !== store.open.peek()) {
    const address = `#chat=${id}`;
    // On a phone, the list stays one step below when the chat changes.
    if (isPhone.matches && store.open.peek() !== 0) {
      history.replaceState(history.state, '', address);
    } else history.pushState({ above: true }, '', address);
  }
  try {
    await store.actions.openChat(id);
  } catch (error) {
    fail(error);
    showList();
  }
}

/** Goes back to the list. */
export async function showList() {
  closeLayers();
  if (store.open.peek() !== 0) store.actions.closeChat();
  await settle();
  if (chatOf(location.hash) === 0) return;
  if (history.state?.above === true && isPhone.matches) history.back();
  else history.replaceState({}, '', location.pathname);
}

/** Keeps the composer above the keyboard if the browser does not resize the page itself. */
function fitToKeyboard() {
  const viewport = window.visualViewport;
  if (!viewport) return;
  const fit = () => {
    const hidden = innerHeight - viewport.height - viewport.offsetTop;
    const style = document.documentElement.style;
    if (hidden > 60 && viewport.scale === 1) style.setProperty('--keyboard', `${hidden}px`);
    else style.removeProperty('--keyboard');
  };
  viewport.addEventListener('resize', fit);
  viewport.addEventListener('scroll', fit);
}

// --- The two panes ------------------------------------------------------------------------------

function main() {
  const pane = h('div', { class: 'chat-pane' });
  const shown = computed(() => openChat_.value?.id ?? 0);
  effect(() => {
    const id = shown.value;
    return untracked(() => showPane(pane, id));
  });
  return h('main', { class: () => `panes ${openChat_.value ? 'has-chat' : ''}` },
    chatList(), pane);
}

/** `isPhone` as a signal. */
const isNarrow = signal(isPhone.matches);
isPhone.addEventListener('change', () => (isNarrow.value = isPhone.matches));

/** The loaded module of the chat, so that it is shown at once, without an empty frame. */
let chatScreen = /** @type {typeof import('./chat.js') | null} */ (null);

/**
 * @param {HTMLElement} pane
 * @param {number} id
 * @returns {() => void}
 */
function showPane(pane, id) {
  let hide = () => {};
  let isGone = false;
  const render = () => {
    if (isGone) return;
    hide = mount(pane, () => (id ? chatScreen?.chatView(id) : emptyPane()));
  };
  if (id === 0 || chatScreen) render();
  else {
    import('./chat.js').then((module) => {
      chatScreen = module;
      render();
    });
  }
  return () => {
    isGone = true;
    hide();
  };
}

function emptyPane() {
  return when(() => isNewServer.value && !isNarrow.value, stepsPlace, () => h('div', { class: 'empty' },
    h('div', { class: 'empty-icon' }, icon('chat')),
    when(() => store.chats.value.length > 0, () => h('p', null, t('Choose a chat to read it.'))),
    h('p', { class: 'keys-hint' }, h('kbd', null, 'Ctrl'), ' ', h('kbd', null, 'K'), ' ',
      t('switches chats'), ' · ', h('kbd', null, '?'), ' ', t('shows all keys'))));
}

// --- The list of chats --------------------------------------------------------------------------

function chatList() {
  const filter = signal('');
  const shown = computed(() => {
    const wanted = filter.value.trim().toLowerCase();
    return wanted === '' ? store.chats.value
      : store.chats.value.filter(({ title, name }) =>
        title.toLowerCase().includes(wanted) || name.toLowerCase().includes(wanted));
  });
  const list = h('ul', { class: 'chat-list' });
  each(list, () => shown.value, (chat) => chat.id, chatRow);
  effect(() => {
    if (store.open.value) queueMicrotask(() => list.querySelector('.open')?.scrollIntoView({ block: 'nearest' }));
  });
  return h('nav', { class: 'list-pane', 'aria-label': t('Chats') },
    h('header', { class: 'list-head' },
      h('h1', { class: 'list-title' }, () => store.server.value?.name || t('Chats')),
      iconButton('plus', t('New chat'), newChat),
      iconButton('settings', t('Settings'), openSettings)),
    when(() => store.chats.value.length > 4, () => h('div', { class: 'list-filter' },
      icon('search'),
      h('input', {
        type: 'search', 'aria-label': t('Filter chats'), placeholder: t('Filter chats'),
        autocomplete: 'off', enterkeyhint: 'go',
        oninput: (/** @type {any} */ event) => (filter.value = event.target.value),
        onkeydown: (/** @type {any} */ event) => {
          const first = shown.peek()[0];
          if (event.key === 'Enter' && first && !isComposing(event)) openChat(first.id);
        },
      }))),
    h('div', { class: 'list-scroll' }, list,
      when(() => isNewServer.value && isNarrow.value, stepsPlace),
      when(() => store.chats.value.length === 0 && !isNewServer.value, noChats),
      when(() => store.chats.value.length > 0 && shown.value.length === 0, () =>
        h('p', { class: 'list-note' }, t('No chat is called that.')))));
}

/**
 * @param {import('../view.js').ReadonlySignal<Chat>} chat
 */
function chatRow(chat) {
  const { id } = chat.peek();
  const title = () => chat.value.title;
  const unread = () => unreadText(chat.value);
  const describedBy = `about-${id}`;
  // The link contains the name only, but covers the whole row.
  const link = h('a', {
    href: `#chat=${id}`,
    class: 'row-title',
    'aria-current': () => (store.open.value === id ? 'true' : null),
    'aria-describedby': describedBy,
    onclick: (/** @type {MouseEvent} */ event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0) return;
      event.preventDefault();
      openChat(id);
    },
  }, h('bdi', null, () => plain(title())),
  when(unread, () => h('span', { class: 'sr-only' }, () => ` ${unread()}`)));
  return h('li', {
    class: () => ['chat-row', store.open.value === id && 'open', chat.value.unread > 0 && 'unread',
      chat.value.notify === 2 && 'muted'].filter(Boolean).join(' '),
  },
  h('span', { class: 'avatar-place' },
    match(title, (name) => avatar(avatarId(chat.peek()), name)),
    when(() => chat.value.peer?.online, () => h('span', { class: 'online-dot' }))),
  h('span', { class: 'row-main' },
    h('span', { class: 'row-top' },
      link,
      when(() => chat.value.hasPassword || chat.value.isClosed, () => icon('lock', 'row-mark')),
      when(() => chat.value.notify === 2, () => icon('bell-off', 'row-mark')),
      h('time', { class: 'row-time' }, () => {
        const time = chat.value.lastMessage?.time || chat.value.lastTime;
        return time ? shortTime(time) : '';
      })),
    h('span', { class: 'row-bottom' },
      h('span', { class: 'row-preview', id: describedBy }, () => preview(chat.value)),
      when(() => chat.value.unread > 0, () => h('span', { class: 'badge', 'aria-hidden': 'true' },
        () => badgeText(chat.value))))));
}

/** A direct chat has the colour of the person. @param {Chat} chat */
export const avatarId = (chat) => chat.peer?.id ?? chat.id;

/** @param {Chat} chat */
export const badgeText = ({ unread }) => (unread >= 1000 ? '999+' : String(unread));

/** @param {Chat} chat */
function unreadText({ unread }) {
  if (unread === 0) return '';
  return unread >= 1000 ? t('999+ unread') : tn('{n} unread', '{n} unread', unread);
}

/**
 * The line below the title: who is typing, the draft, or the last message.
 * @param {Chat} chat
 * @returns {import('../view.js').Child}
 */
function preview(chat) {
  if (chat.typing.length > 0) return h('span', { class: 'typing' }, typingText(chat));
  if (chat.draft && store.open.value !== chat.id) {
    return [h('span', { class: 'draft' }, t('Draft:')), ' ', oneLine(chat.draft)];
  }
  const last = chat.lastMessage;
  if (!last) return '';
  if (last.deleted) return t('Message deleted');
  const text = oneLine(last.text) || plain(last.files.join(', '));
  const isMine = last.sender === store.me.peek()?.id;
  if (last.state === 'failed') return [h('span', { class: 'draft' }, t('Not sent')), ' ', text];
  if (isMine) return [h('span', { class: 'row-sender' }, t('You:')), ' ', text];
  return chat.kind === 'group' && last.senderName
    ? [h('span', { class: 'row-sender' }, `${last.senderName}:`), ' ', text] : text;
}

/** @param {string} text */
const oneLine = (text) => text.slice(0, 200).replace(/\s+/g, ' ').trim();

/** @param {Chat} chat */
export function typingText({ typing, kind }) {
  if (kind === 'direct') return t('typing…');
  if (typing.length === 1) return t('{name} is typing…', { name: typing[0] });
  return tn('{n} person is typing…', '{n} people are typing…', typing.length);
}

/** Whether to show the first steps of a new server's operator, until a chat is opened. */
const isNewServer = signal(false);
/** Whether the first chat is made by the steps: any other chat ends them. */
let hasBegun = false;
export const beginSteps = () => void (hasBegun = true);

function stepsPlace() {
  const place = h('div', { class: 'steps-place' });
  import('./cards.js').then(({ firstSteps }) => mount(place, firstSteps));
  return place;
}

function noChats() {
  return h('div', { class: 'list-empty' },
    h('div', { class: 'empty-icon' }, icon('chat')),
    h('p', null, t('You are in no chat yet.')),
    h('button', { class: 'button primary', onclick: newChat },
      t('Start or find a chat')),
    h('p', { class: 'hint' },
      t('Got an invite link? Open it in this browser and you are in.')));
}

// --- Dialogs and keys ---------------------------------------------------------------------------

export const newChat = () => void import('./chats.js').then((it) => it.openNewChat());
export const openSettings = () => void import('./settings.js').then((it) => it.openSettings());
/** @param {number} id 0: all chats */
export const openSearch = (id) => void import('./choose.js').then((it) => it.openSearch(id));

/** A search box with text takes the first Escape for itself. @param {KeyboardEvent} event */
function clearSearch(event) {
  const box = event.target;
  if (event.key !== 'Escape' || !(box instanceof HTMLInputElement)) return;
  if (box.type !== 'search' || box.value === '') return;
  event.preventDefault();
  event.stopPropagation();
  box.value = '';
  box.dispatchEvent(new Event('input', { bubbles: true }));
}

/** @param {KeyboardEvent} event */
function onKey(event) {
  if (store.phase.peek() !== 'ready' || event.defaultPrevented || isComposing(event)) return;
  if (document.querySelector('dialog[open], .menu-layer')) return;
  const isTyping = event.target instanceof HTMLElement
    && event.target.matches('input, textarea, select');
  const hasCtrl = event.ctrlKey || event.metaKey;
  if (hasCtrl && !event.shiftKey && event.code === 'KeyK') {
    import('./choose.js').then((it) => it.openSwitcher());
  } else if (hasCtrl && event.code === 'KeyF' && event.shiftKey) openSearch(store.open.peek());
  else if (event.altKey && !hasCtrl && event.key === 'ArrowUp') step(-1, event.shiftKey);
  else if (event.altKey && !hasCtrl && event.key === 'ArrowDown') step(1, event.shiftKey);
  else if (event.key === '?' && !isTyping && !hasCtrl) {
    import('./choose.js').then((it) => it.openKeys());
  } else return;
  event.preventDefault();
}

/**
 * @param {number} by
 * @param {boolean} isUnread only chats with something unread
 */
function step(by, isUnread) {
  const chats = store.chats.peek();
  const at = chats.findIndex((chat) => chat.id === store.open.peek());
  for (let n = 1; n <= chats.length; n += 1) {
    const from = at < 0 && by < 0 ? 0 : at;
    const next = chats[(((from + by * n) % chats.length) + chats.length) % chats.length];
    if (isUnread && next.unread === 0) continue;
    batch(() => openChat(next.id));
    return;
  }
}
