/**
 * The screen of one chat: head, messages and composer.
 */
import { timelineView } from '../timeline.js';
import { computed, each, effect, h, match, onCleanup, signal, untracked, when } from '../view.js';
import {
  announce, avatarId, openSearch, showList, typingText,
} from './app.js';
import {
  avatar, confirmDialog, copyText, fail, formatSize, hue, icon, iconButton, isComposing, isTouch,
  plain, shortTime, store, t, tn,
} from './kit.js';

/** @typedef {import('../types.js').Chat} Chat */
/** @typedef {import('../types.js').Message} Message */
/** @typedef {import('../view.js').ReadonlySignal<Chat>} ChatSignal */
/**
 * The mode of the composer other than a new message: reply or edit.
 * @typedef {{kind: 'reply' | 'edit', message: Message} | null} Mode
 */

/**
 * @param {number} id
 */
export function chatView(id) {
  // The chat may be gone while its screen is shown: its last state stays until then.
  /** @type {Chat | undefined} */
  let last;
  const chat = computed(() =>
    /** @type {Chat} */ (last = store.chats.value.find((one) => one.id === id) ?? last));
  const mode = signal(/** @type {Mode} */ (null));
  const timeline = timelineView(chat, {
    announce,
    empty: () => emptyChat(chat),
    act: (act, message, element, event) =>
      actOn(act, message, element, event, { chat, mode, timeline }),
  });
  const composer = composerView(chat, mode, timeline);
  pendingJump(id, timeline);
  return h('section', {
    class: 'chat',
    'aria-label': () => chat.value.title,
    onkeydown: (/** @type {KeyboardEvent} */ event) => chatKey(event, mode, timeline),
    ondragenter: dragOver, ondragover: dragOver, ondragleave: dragOver, ondrop: dragOver,
  }, chatHead(chat), timeline.element, uploadTray(id), composer.element,
  h('div', { class: 'drop-hint', 'aria-hidden': 'true' }, icon('attach'), t('Drop files to send them')));

  /** @param {DragEvent} event */
  function dragOver(event) {
    if (!event.dataTransfer?.types.includes('Files') || !canAttach()) return;
    event.preventDefault();
    const section = /** @type {HTMLElement} */ (event.currentTarget);
    if (event.type === 'drop') attach(id, droppedFiles(event.dataTransfer), mode);
    const isOut = event.type === 'dragleave'
      && !section.contains(/** @type {Node | null} */ (event.relatedTarget));
    section.classList.toggle('dropping', event.type !== 'drop' && !isOut);
  }
}

/**
 * Files that were dropped. A folder is among them as a file that cannot be read: it is left out.
 * @param {DataTransfer} dropped
 */
function droppedFiles({ items, files }) {
  const isFolder = [...items].filter(({ kind }) => kind === 'file')
    .map((item) => item.webkitGetAsEntry?.()?.isDirectory);
  return [...files].filter((_, index) => !isFolder[index]);
}

/** A message to show once its chat is open, e.g. a hit of a search. */
const jump = signal(/** @type {{chat: number, message: number} | null} */ (null));

/**
 * @param {number} chat
 * @param {number} message
 */
export const jumpIn = (chat, message) => void (jump.value = { chat, message });

/**
 * @param {number} id
 * @param {import('../timeline.js').TimelineView} timeline
 */
function pendingJump(id, timeline) {
  effect(() => {
    const wanted = jump.value;
    if (wanted?.chat !== id || !store.timeline(id).loaded.value || !store.timeline(id).ready.value) return;
    untracked(() => {
      jump.value = null;
      setTimeout(() => timeline.jumpTo(wanted.message).catch(fail), 30);
    });
  });
}

/**
 * @param {KeyboardEvent} event
 * @param {import('../view.js').Signal<Mode>} mode
 * @param {import('../timeline.js').TimelineView} timeline
 */
function chatKey(event, mode, timeline) {
  if (event.key !== 'Escape' || event.defaultPrevented) return;
  event.preventDefault();
  if (mode.peek()) mode.value = null;
  else {
    timeline.markRead();
    timeline.toEnd().catch(() => {});
  }
}

// --- The head -----------------------------------------------------------------------------------

/** @param {ChatSignal} chat */
function chatHead(chat) {
  const { id, kind } = chat.peek();
  const isGroup = kind === 'group';
  return h('header', { class: 'chat-head' },
    iconButton('back', t('Back to the list'), showList, { class: 'icon-button back' }),
    h('button', {
      class: 'head-avatar', 'aria-label': t('About this chat'),
      title: t('About this chat'), onclick: () => openChatSettings(id),
    }, match(() => chat.value.title, (title) => avatar(avatarId(chat.peek()), title))),
    h('div', { class: 'head-names', onclick: () => openChatSettings(id) },
      h('h1', { class: 'head-title' }, () => plain(chat.value.title)),
      h('p', { class: () => `head-about ${chat.value.typing.length > 0 ? 'typing' : ''}` },
        () => about(chat.value))),
    iconButton('search', t('Search'), () => openSearch(id)),
    isGroup && iconButton('members', t('Members'), () =>
      import('./chats.js').then((it) => it.openMembers(id))),
    isGroup && iconButton('invite', t('Invite'), () =>
      import('./invite.js').then((it) => it.openInvite(id))));
}

/** @param {number} id */
const openChatSettings = (id) => void import('./chats.js').then((it) => it.openChatSettings(id));

/** @param {Chat} chat */
function about(chat) {
  if (chat.typing.length > 0) return typingText(chat);
  if (chat.kind === 'group') return tn('{n} member', '{n} members', chat.members);
  if (chat.peer?.online) return t('online');
  if (chat.peer?.disabled) return t('disabled');
  return chat.peer?.seen ? t('was here {time}', { time: shortTime(chat.peer.seen) }) : '';
}

/** @param {ChatSignal} chat */
function emptyChat(chat) {
  const { id, kind } = chat.peek();
  return h('div', { class: 'empty small' },
    h('div', { class: 'empty-icon' }, icon('chat')),
    h('p', null, t('No messages yet. Say hello!')),
    kind === 'group' && chat.peek().isAdmin && h('button', {
      class: 'button',
      onclick: () => import('./invite.js').then((it) => it.openInvite(id)),
    }, t('Add people')));
}

// --- Actions on a message -----------------------------------------------------------------------

/**
 * @typedef {{chat: ChatSignal, mode: import('../view.js').Signal<Mode>,
 *   timeline: import('../timeline.js').TimelineView}} Screen
 */

/**
 * @param {string} act
 * @param {Message} message
 * @param {HTMLElement} element
 * @param {Event} event
 * @param {Screen} screen
 */
function actOn(act, message, element, event, screen) {
  const { chat, mode, timeline } = screen;
  const chatId = chat.peek().id;
  if (act === 'menu') messageMenu(message, element, event, screen);
  else if (act === 'reply' && canReply(message)) mode.value = { kind: 'reply', message };
  else if (act === 'react') {
    const emoji = String(element.dataset.emoji);
    const isMine = message.reactions.some((one) => one.emoji === emoji && one.mine);
    store.actions.react(chatId, message.id, emoji, !isMine).catch(fail);
  } else if (act === 'jump' && message.reply) timeline.jumpTo(message.reply.id).catch(fail);
  else if (act === 'retry' && message.localId) store.actions.retry(message.localId).catch(fail);
  else if (act === 'discard' && message.localId) {
    store.actions.discard(message.localId).catch(fail);
  } else if (act === 'view') {
    const file = message.files.find((one) => String(one.id) === element.dataset.file);
    if (file) import('./files.js').then((it) => it.openImage(file, message));
  }
}

/** @param {Message} message */
const canReply = ({ state, deleted }) => state === 'stored' && !deleted && hasExtras();

/** Replies, reactions and files need API 1.1. */
function hasExtras() {
  const api = store.server.peek()?.api;
  return Boolean(api && (api.major > 1 || api.minor >= 1));
}
const canAttach = () => hasExtras() && (store.server.peek()?.maxFile ?? 0) > 0;

/**
 * @param {Message} message
 * @param {HTMLElement} element
 * @param {Event} event
 * @param {Screen} screen
 */
function messageMenu(message, element, event, { chat, mode }) {
  const { id, isAdmin } = chat.peek();
  const isMine = message.sender === store.me.peek()?.id;
  const isStored = message.state === 'stored';
  const article = /** @type {HTMLElement} */ (element.closest('article'));
  // The menu returns the focus to the button, even if a press on the text opened it.
  const opener = /** @type {HTMLElement} */ (
    element === article ? article : article.querySelector('.message-more'));
  const items = [
    canReply(message) && {
      label: t('Reply'), icon: 'reply', run: () => (mode.value = { kind: 'reply', message }),
    },
    canReply(message) && {
      label: t('React'), icon: 'smile',
      run: () => import('./choose.js').then((it) =>
        it.openPicker(opener, t('React'), (emoji) => react(id, message, emoji))),
    },
    isStored && isMine && !message.deleted && {
      label: t('Edit'), icon: 'edit', run: () => (mode.value = { kind: 'edit', message }),
    },
    !message.deleted && message.text && {
      label: t('Copy text'), icon: 'copy', run: () => copyText(message.text),
    },
    isStored && !message.deleted && message.reactions.length > 0 && {
      label: t('Who reacted'), icon: 'members',
      run: () => import('./choose.js').then((it) => it.openReactions(id, message.id)),
    },
    isStored && (isMine || isAdmin) && !message.deleted && {
      label: t('Delete'), icon: 'trash', class: 'danger', run: () => remove(id, message),
    },
    message.state === 'failed' && message.localId && {
      label: t('Discard'), icon: 'trash', class: 'danger',
      run: () => store.actions.discard(String(message.localId)).catch(fail),
    },
  ].filter(Boolean);
  if (items.length === 0) return;
  const at = event.type === 'contextmenu' && event instanceof MouseEvent && event.clientX > 0
    ? { x: event.clientX, y: event.clientY } : {};
  import('./choose.js').then((it) => it.openMenu(opener, t('Message'), /** @type {any} */ (items), at));
}

/**
 * @param {number} chatId
 * @param {Message} message
 * @param {string} emoji
 */
function react(chatId, message, emoji) {
  const isMine = message.reactions.some((one) => one.emoji === emoji && one.mine);
  store.actions.react(chatId, message.id, emoji, !isMine).catch(fail);
}

/**
 * @param {number} chatId
 * @param {Message} message
 */
async function remove(chatId, message) {
  const isSure = await confirmDialog({
    title: t('Delete this message?'),
    text: t('It disappears for everybody. This cannot be undone.'),
    button: t('Delete'),
  });
  if (isSure) await store.actions.remove(chatId, message.id).catch(fail);
}

// --- The composer -------------------------------------------------------------------------------

const DRAFT_MS = 400;
const HEIGHT_MAX_PX = 200;

/**
 * @param {ChatSignal} chat
 * @param {import('../view.js').Signal<Mode>} mode
 * @param {import('../timeline.js').TimelineView} timeline
 */
function composerView(chat, mode, timeline) {
  const { id } = chat.peek();
  const text = signal(chat.peek().draft);
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let draftTimer;
  const completion = signal(/** @type {import('./choose.js').Completion | null} */ (null));

  const box = h('textarea', {
    'aria-label': t('Message'), placeholder: t('Message'), rows: 1, dir: 'auto',
    enterkeyhint: isTouch.matches ? 'enter' : 'send', autocomplete: 'off',
    'aria-autocomplete': 'list',
    'aria-controls': () => (completion.value ? 'mentions' : null),
    'aria-activedescendant': () => (completion.value ? `mention-${completion.value.at}` : null),
    oninput: () => {
      text.value = box.value;
      resize();
      complete();
      if (mode.peek()?.kind === 'edit') return;
      saveDraft();
      if (box.value !== '') store.actions.typing(id);
    },
    onkeydown: key,
    onblur: () => (completion.value = null),
    onclick: () => complete(),
    onpaste: (/** @type {ClipboardEvent} */ event) => {
      const { files, types = [] } = event.clipboardData ?? {};
      // Office programs add a picture of the text that they copy: who pastes that wants the text.
      if (!files?.length || types.includes('text/rtf') || !canAttach()) return;
      event.preventDefault();
      attach(id, [...files], mode);
    },
  });
  const picker = h('input', {
    type: 'file', multiple: true, hidden: true, tabindex: -1, 'aria-hidden': 'true',
    onchange: () => {
      const files = [...picker.files];
      picker.value = '';
      if (files.length > 0) attach(id, files, mode);
    },
  });

  function resize() {
    box.style.height = 'auto';
    box.style.height = `${Math.min(box.scrollHeight + 2, HEIGHT_MAX_PX)}px`;
  }

  /** @param {string} value */
  function setText(value) {
    text.value = box.value = value;
    resize();
  }

  function saveDraft() {
    // The first change is saved at once: the session can end, or the page close, before the next.
    if (draftTimer === undefined) writeDraft();
    clearTimeout(draftTimer);
    draftTimer = setTimeout(flushDraft, DRAFT_MS);
  }

  function flushDraft() {
    clearTimeout(draftTimer);
    draftTimer = undefined;
    writeDraft();
  }

  function writeDraft() {
    const draft = draftAside ?? box.value;
    if (chat.peek().draft !== draft) store.actions.setDraft(id, draft).catch(() => {});
  }

  function complete() {
    const before = box.value.slice(0, box.selectionStart);
    if (completion.peek() === null && !/(^|[^\p{L}\p{N}])@[^\s@]{0,32}$/u.test(before)) return;
    import('./choose.js').then(async (it) => {
      completion.value = await it.complete(chat.peek(), box);
    });
  }

  /** @param {KeyboardEvent} event */
  function key(event) {
    if (isComposing(event)) return;
    const list = completion.peek();
    if (list && list.key(event, (next) => (completion.value = next), choose)) {
      event.preventDefault();
      event.stopPropagation();
      return;
    }
    if (event.key === 'Enter' && !event.shiftKey && !event.altKey && !isTouch.matches) {
      event.preventDefault();
      submit();
    } else if (event.key === 'ArrowUp' && box.value === '' && !mode.peek()
      && !event.altKey && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
      const mine = store.timeline(id).items.peek().filter((message) =>
        message.sender === store.me.peek()?.id && message.state === 'stored' && !message.deleted)
        .at(-1);
      if (!mine) return;
      event.preventDefault();
      mode.value = { kind: 'edit', message: mine };
    }
  }

  /**
   * Puts a text in place of what is selected.
   * @param {string} added
   * @param {number} [from]
   */
  function insert(added, from = box.selectionStart) {
    box.focus();
    box.setSelectionRange(from, box.selectionEnd);
    // As if it were typed: the box gets an input event, and the insertion can be undone.
    document.execCommand('insertText', false, added);
  }

  /** @param {string} name */
  function choose(name) {
    completion.value = null;
    insert(`@${name} `, box.value.slice(0, box.selectionStart).lastIndexOf('@'));
  }

  async function submit() {
    const value = box.value.trim();
    const current = mode.peek();
    if (value === '' && !(current?.kind === 'edit' && current.message.files.length > 0)) return;
    const max = store.server.peek()?.maxContent ?? Infinity;
    const size = new TextEncoder().encode(value).length;
    if (size > max) {
      fail({ code: '', text: t('This message is too long: {size} of at most {max}.', {
        size: formatSize(size), max: formatSize(max),
      }) });
      return;
    }
    if (current?.kind === 'edit') {
      mode.value = null;
      if (value !== current.message.text) {
        await store.actions.edit(id, current.message.id, value).catch((error) => {
          fail(error);
          if (mode.peek()) return;
          mode.value = current;
          setText(value);
        });
      }
      return;
    }
    setText('');
    mode.value = null;
    clearTimeout(draftTimer);
    draftTimer = undefined;
    try {
      await store.actions.send(id, value, { replyTo: current?.message.id });
      flushDraft();
    } catch (error) {
      // Queueing failed: keep the text.
      if (box.value === '') setText(value);
      fail(error);
    }
    timeline.toEnd().catch(() => {});
  }

  /** @type {string | null} The draft, while a message is being edited. */
  let draftAside = null;
  effect(() => {
    const current = mode.value;
    untracked(() => {
      if (current?.kind === 'edit') {
        draftAside ??= box.value;
        setText(current.message.text);
      } else if (draftAside !== null) {
        setText(draftAside);
        draftAside = null;
      }
      if (current) box.focus();
    });
  });
  // Show a draft from storage or from another tab, unless the user has typed here meanwhile.
  let shownDraft = box.value;
  effect(() => {
    const draft = chat.value.draft;
    untracked(() => {
      const isFree = box.value === shownDraft && !draftTimer && draftAside === null;
      if (isFree && box.value !== draft) setText(draft);
      shownDraft = draft;
    });
  });
  addEventListener('pagehide', flushDraft);
  onCleanup(() => {
    removeEventListener('pagehide', flushDraft);
    if (draftAside === null && draftTimer) flushDraft();
  });
  // It has no size until it is in the page.
  queueMicrotask(resize);
  if (!isTouch.matches) setTimeout(() => box.isConnected && !document.querySelector('dialog[open]') && box.focus(), 0);

  const canSend = () => text.value.trim() !== '' || mode.value?.kind === 'edit';
  return {
    element: h('div', { class: 'composer' },
      match(() => mode.value, (current) => current && modeBanner(current, () => {
        mode.value = null;
        box.focus();
      })),
      match(() => completion.value, (list) => list && list.render(choose)),
      picker,
      h('form', {
        class: 'composer-row',
        onsubmit: (/** @type {Event} */ event) => {
          event.preventDefault();
          submit();
          box.focus();
        },
      },
      when(() => store.server.value && canAttach(), () =>
        iconButton('attach', t('Attach'), () => picker.click())),
      h('div', { class: 'box' }, box),
      // The keyboards of touch screens have their own.
      !isTouch.matches && iconButton('smile', t('Emoji'), (event) => {
        const opener = /** @type {HTMLElement} */ (event.currentTarget);
        import('./choose.js').then((it) => it.openPicker(opener, t('Emoji'), insert));
      }, { 'aria-haspopup': 'menu' }),
      h('button', {
        type: 'submit', class: 'send', 'aria-label': t('Send'), title: t('Send'),
        'aria-disabled': () => (canSend() ? null : 'true'),
        // The keyboard of a phone stays open.
        onpointerdown: (/** @type {Event} */ event) => event.preventDefault(),
      }, icon('send')))),
  };
}

/**
 * @param {NonNullable<Mode>} mode
 * @param {() => void} cancel
 */
function modeBanner({ kind, message }, cancel) {
  return h('div', { class: 'mode', style: { '--hue': String(hue(message.sender)) } },
    icon(kind === 'edit' ? 'edit' : 'reply'),
    h('div', { class: 'mode-about' },
      h('div', { class: 'mode-title' }, kind === 'edit' ? t('Edit message')
        : t('Reply to {name}', { name: message.senderName })),
      h('div', { class: 'mode-text' },
        message.text || message.files.map((file) => file.name).join(', '))),
    iconButton('close', t('Cancel'), cancel));
}

// --- Uploads ------------------------------------------------------------------------------------

/**
 * @typedef {object} Upload
 * @property {string} key
 * @property {number} chat
 * @property {string} name
 * @property {number} size
 * @property {import('../view.js').Signal<number>} sent
 * @property {import('../view.js').Signal<string>} error
 * @property {() => void} cancel
 * @property {() => void} retry
 */

/** @type {import('../view.js').Signal<Upload[]>} */
export const uploads = signal(/** @type {Upload[]} */ ([]));

/**
 * @param {number} chatId
 * @param {File[]} files
 * @param {import('../view.js').Signal<Mode>} mode
 */
function attach(chatId, files, mode) {
  import('./files.js').then((it) => it.openSendFiles(chatId, files, () => {
    const current = mode.peek();
    if (current?.kind !== 'reply') return undefined;
    mode.value = null;
    return current.message.id;
  }));
}

/** @param {number} chatId */
function uploadTray(chatId) {
  const tray = h('div', { class: 'uploads' });
  each(tray, () => uploads.value.filter((one) => one.chat === chatId), (one) => one.key, (row) => {
    const { name, size, sent, error, cancel, retry } = row.peek();
    return h('div', { class: 'upload', role: 'group', 'aria-label': name },
      icon('file'),
      h('div', { class: 'upload-about' },
        h('bdi', { class: 'upload-name' }, plain(name)),
        () => (error.value ? h('span', { class: 'upload-error' }, error.value)
          : h('progress', { max: size, value: () => sent.value, 'aria-label': name }))),
      when(() => error.value, () => h('button', { class: 'link', onclick: retry },
        t('Try again'))),
      iconButton('close', t('Cancel'), cancel));
  });
  return tray;
}

