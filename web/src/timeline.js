/**
 * The virtualised list of a chat's messages: at most some 120 elements for any number of messages.
 *
 * The scroller holds a slice of the loaded messages. When the reader comes near an end, the slice
 * grows there by a step and shrinks at the other end. After every change the scroll position is
 * corrected, so that the visible messages do not move. The browser's own scroll anchoring is off,
 * since not every browser has it and it does not know what is prepended. A reader at the end stays
 * at the end.
 *
 * The first part does not use the DOM and runs in unit tests; then come the list and the message.
 */
import { toNodes } from './text.js';
import {
  avatar, dayName, dayOf, explain, fail, formatSize, formatTime, hue, icon, plain, store, t,
} from './ui/kit.js';
import { effect, each, h, match, onCleanup, signal, when } from './view.js';

/** @typedef {import('./types.js').Message} Message */
/** @typedef {import('./types.js').Chat} Chat */
/** @typedef {import('./types.js').FileInfo} FileInfo */
/** @typedef {{start: number, end: number}} Range Indexes into the items, `end` not included. */
/**
 * @typedef {{key: string, kind: 'day' | 'unread', time: number, message?: undefined,
 *   isFirst?: undefined, isLast?: undefined}
 *   | {key: string, kind: 'message', time: number, message: Message, isFirst: boolean,
 *   isLast: boolean}} Row
 */

// --- 1. Which messages are in the page ----------------------------------------------------------

/**
 * Most messages in the page: some three screens of short ones. All are painted anew when the slice
 * moves, so that more would make frames longer.
 */
export const SLICE_MAX = 96;
/** Messages by which the slice grows: more would take longer than a frame on a slow phone. */
const STEP = 8;
/** Messages of one sender within this time are one group. */
const GROUP_US = 5 * 60 * 1_000_000;
/** Load more when fewer loaded messages than this remain beyond the slice. */
const LOAD_BELOW = 60;

/** @param {Message} message */
export const keyOf = (message) => message.localId ?? String(message.id);

/** The time of the newest message that the server has. @param {readonly Message[]} items */
function newestStored(items) {
  for (let at = items.length - 1; at >= 0; at -= 1) {
    if (items[at].state === 'stored') return items[at].created;
  }
  return 0;
}

/**
 * Moves a slice over from the old items to the new ones.
 * @param {Range} range
 * @param {readonly Message[]} before
 * @param {readonly Message[]} after
 * @param {boolean} isAtEnd the reader follows what is new
 * @returns {Range}
 */
export function follow(range, before, after, isAtEnd) {
  if (isAtEnd || before.length === 0) return lastSlice(after.length, range.end - range.start);
  let first = -1;
  // The first shown messages may be gone.
  for (let at = range.start; at < range.end && first < 0; at += 1) first = indexOf(after, before[at]);
  // None of the shown messages is among the new items: all were replaced.
  if (first < 0) return lastSlice(after.length, SLICE_MAX / 2);
  const last = indexOf(after, before[range.end - 1]);
  const end = last < 0 ? first + (range.end - range.start) : last + 1;
  return { start: Math.max(first, end - SLICE_MAX), end: Math.min(end, after.length) };
}

/**
 * @param {readonly Message[]} items
 * @param {Message | undefined} message
 */
function indexOf(items, message) {
  if (!message) return -1;
  const key = keyOf(message);
  for (let at = items.length - 1; at >= 0; at -= 1) if (keyOf(items[at]) === key) return at;
  return -1;
}

/**
 * @param {number} length
 * @param {number} size
 * @returns {Range}
 */
export function lastSlice(length, size) {
  const shown = Math.min(SLICE_MAX, Math.max(size, SLICE_MAX / 2));
  return { start: Math.max(0, length - shown), end: length };
}

/**
 * @param {number} index of the message to show
 * @param {number} length
 * @returns {Range}
 */
export function sliceAround(index, length) {
  const start = Math.max(0, index - SLICE_MAX / 4);
  return { start, end: Math.min(length, start + SLICE_MAX / 2) };
}

/**
 * Grows a slice at one end and shrinks it at the other where it would be too long.
 * @param {Range} range
 * @param {number} length
 * @param {'up' | 'down'} direction
 * @returns {Range}
 */
export function grow({ start, end }, length, direction) {
  if (direction === 'up') {
    const from = Math.max(0, start - STEP);
    return { start: from, end: Math.min(end, from + SLICE_MAX) };
  }
  const to = Math.min(length, end + STEP);
  return { start: Math.max(start, to - SLICE_MAX), end: to };
}

/**
 * The rows of a slice: its messages in groups, lines between days, and the line of what is new.
 * @param {readonly Message[]} items
 * @param {Range} range
 * @param {number} lineId the first unread message; 0: none
 * @returns {Row[]}
 */
export function rowsOf(items, range, lineId) {
  /** @type {Row[]} */
  const rows = [];
  for (let at = range.start; at < range.end; at += 1) {
    const message = items[at];
    const before = items[at - 1];
    const day = dayOf(message.created);
    if (!before || dayOf(before.created) !== day) {
      rows.push({ key: `day ${day}`, kind: 'day', time: message.created });
    }
    if (message.id === lineId && lineId !== 0) {
      rows.push({ key: 'unread', kind: 'unread', time: message.created });
    }
    rows.push({
      key: keyOf(message),
      kind: 'message',
      time: message.created,
      message,
      isFirst: !joins(before, message, lineId),
      isLast: !joins(message, items[at + 1], lineId),
    });
  }
  return rows;
}

/**
 * Reuses the row objects that did not change, so that their effects do not run again.
 * @param {readonly Row[]} before
 * @param {Row[]} after
 */
export function reuse(before, after) {
  const known = new Map(before.map((row) => [row.key, row]));
  return after.map((row) => {
    const old = known.get(row.key);
    return old && old.message === row.message && old.isFirst === row.isFirst
      && old.isLast === row.isLast ? old : row;
  });
}

/**
 * @param {Message | undefined} before
 * @param {Message | undefined} after
 * @param {number} lineId
 */
function joins(before, after, lineId) {
  return before !== undefined && after !== undefined && before.sender === after.sender
    && after.created - before.created < GROUP_US && (after.id !== lineId || lineId === 0)
    && dayOf(before.created) === dayOf(after.created);
}

// --- 2. The list --------------------------------------------------------------------------------

/** Distance from the end, in pixels, that counts as at the end. */
const END_PX = 48;
/** Distance from the end, in pixels, above which the jump button is shown. */
const JUMP_PX = 240;
/** Position of the first unread message, as a fraction of the height. */
const LINE_AT = 0.25;
/** Rows whose places are kept: the first of them may be gone with the next change. */
const ANCHORS = 4;
const SEEN_EVERY_MS = 400;
const FLASH_MS = 1600;

/**
 * @typedef {object} TimelineView
 * @property {any} element
 * @property {(id: number) => Promise<void>} jumpTo shows a message and marks it for a moment
 * @property {() => Promise<void>} toEnd
 * @property {() => void} markRead
 * @property {() => void} focus
 * @property {(message: Message) => HTMLElement | null} find the element of a message
 */

/**
 * Shows the messages of a chat.
 * @param {import('./view.js').ReadonlySignal<Chat>} chat
 * @param {{act: (act: string, message: Message, element: HTMLElement, event: Event) => void,
 *   announce: (text: string) => void, empty: () => import('./view.js').Child}} on
 * @returns {TimelineView}
 */
export function timelineView(chat, on) {
  const id = chat.peek().id;
  const timeline = store.timeline(id);
  const rows = signal(/** @type {Row[]} */ ([]));
  const line = signal(0);
  const showsJump = signal(false);
  const isLoading = signal(false);
  /** @type {readonly Message[]} */
  let items = [];
  /** @type {Range} */
  let range = { start: 0, end: 0 };
  let isAtEnd = true;
  let isPlaced = false;
  /** @type {{element: Element, top: number}[]} What the reader sees, and where. */
  let anchors = [];
  let frame = 0;
  /** The last position set by this code; at any other position the reader has scrolled. */
  let lastTop = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let seenTimer;
  let seenAt = 0;

  const list = h('div', { class: `rows ${chat.peek().kind}` });
  const scroller = h('div', {
    class: 'scroller', role: 'log', 'aria-label': t('Messages'), 'aria-live': 'off', tabindex: 0,
    onkeydown: (/** @type {KeyboardEvent} */ event) => rowKey(event, list, on.act, messageOf),
  },
  h('div', { class: 'history-head' },
    when(() => isLoading.value && !timeline.atStart.value, () => skeleton()),
    when(() => timeline.loaded.value && rows.value.length === 0, on.empty)),
  list);
  scroller.addEventListener('scroll', schedule, { passive: true });

  each(list, () => rows.value, (row) => row.key, (row) => renderRow(row, chat, line));

  /** @param {Element | null} element */
  function messageOf(element) {
    const key = element?.closest('article')?.getAttribute('data-key');
    return rows.peek().find((row) => row.key === key)?.message;
  }

  for (const type of ['click', 'contextmenu', 'pointerdown', 'dblclick']) {
    list.addEventListener(type, (/** @type {any} */ event) => {
      const message = messageOf(event.target);
      if (message) rowEvent(event, message, on.act);
    });
  }

  // Positions. ----------------------------------------------------------------------------------

  const isNewest = () => range.end === items.length && timeline.atEnd.peek();
  const distance = () => scroller.scrollHeight - scroller.clientHeight - scroller.scrollTop;
  /** @param {Element} element */
  const topOf = (element) =>
    element.getBoundingClientRect().top - scroller.getBoundingClientRect().top;

  function record() {
    const children = list.children;
    let [low, high] = [0, children.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      const child = children[middle];
      if (child.offsetTop + child.offsetHeight <= scroller.scrollTop) low = middle + 1;
      else high = middle;
    }
    const { top } = scroller.getBoundingClientRect();
    anchors = [];
    for (let at = low; at < children.length && anchors.length < ANCHORS; at += 1) {
      anchors.push({ element: children[at], top: children[at].getBoundingClientRect().top - top });
    }
    lastTop = scroller.scrollTop;
  }

  /** Notes a scroll by the reader since the last frame, so that it is not reverted. */
  function followReader() {
    if (Math.abs(scroller.scrollTop - lastTop) <= 1) return false;
    isAtEnd = isNewest() && (distance() < END_PX || (isAtEnd && scroller.scrollTop >= lastTop));
    record();
    return true;
  }

  function restore() {
    if (isAtEnd) scroller.scrollTop = scroller.scrollHeight;
    else {
      const anchor = anchors.find(({ element }) => element.isConnected);
      const moved = anchor ? topOf(anchor.element) - anchor.top : 0;
      if (Math.abs(moved) > 0.5) scroller.scrollTop += moved;
    }
    record();
  }

  /** @param {Range} next */
  function show(next) {
    range = next;
    rows.value = reuse(rows.peek(), rowsOf(items, range, line.peek()));
    restore();
  }

  // Loading. ------------------------------------------------------------------------------------

  let isBusy = false;
  /** @param {() => Promise<void>} ask */
  async function load(ask) {
    if (isBusy) return;
    isBusy = true;
    const timer = setTimeout(() => (isLoading.value = true), 300);
    try {
      await ask();
    } catch {
      // The state of the connection is shown elsewhere; scrolling asks again.
    }
    clearTimeout(timer);
    isLoading.value = false;
    isBusy = false;
    schedule();
  }

  function schedule() {
    frame ||= requestAnimationFrame(tick);
  }

  function tick() {
    frame = 0;
    if (!isPlaced || !scroller.isConnected) return;
    const hasMoved = Math.abs(scroller.scrollTop - lastTop) > 1;
    // The layout changed, but the reader has not scrolled.
    if (!hasMoved) restore();
    const below = distance();
    isAtEnd = isNewest() && (below < END_PX || (isAtEnd && scroller.scrollTop >= lastTop));
    showsJump.value = below > JUMP_PX || !isNewest();
    if (hasMoved) record();
    // On a very high screen a slice is no three screens long: both ends would be near for ever.
    const near = Math.min(scroller.clientHeight, (below + scroller.scrollTop) / 3);
    if (scroller.scrollTop <= near && range.start > 0) show(grow(range, items.length, 'up'));
    else if (below <= near && range.end < items.length) show(grow(range, items.length, 'down'));
    if (range.start < LOAD_BELOW && !timeline.atStart.peek()) load(() => timeline.loadOlder());
    else if (items.length - range.end < LOAD_BELOW && !timeline.atEnd.peek()) {
      load(() => timeline.loadNewer());
    }
    noteSeen();
  }

  // What is new. --------------------------------------------------------------------------------

  const isWatched = () => document.visibilityState === 'visible' && document.hasFocus();

  function noteSeen() {
    const seen = Math.max(chat.peek().seen, seenAt);
    if (!isWatched() || seenTimer || newestStored(items) <= seen) return;
    const bottom = scroller.scrollTop + scroller.clientHeight;
    const shown = rows.peek();
    for (let at = shown.length - 1; at >= 0; at -= 1) {
      const { message } = shown[at];
      // Times of messages that are not stored are those of this browser's clock.
      if (message?.state !== 'stored') continue;
      if (message.created <= seen) return;
      const element = /** @type {HTMLElement | undefined} */ (list.children[at]);
      if (!element || element.offsetTop + 24 > bottom) continue;
      markSeen(message.created);
      return;
    }
  }

  /** @param {number} time */
  function markSeen(time) {
    if (time <= Math.max(chat.peek().seen, seenAt)) return;
    seenAt = time;
    store.actions.markSeen(id, time).catch(() => (seenAt = 0));
    seenTimer = setTimeout(() => {
      seenTimer = undefined;
      noteSeen();
    }, SEEN_EVERY_MS);
  }

  /** @param {readonly Message[]} before */
  function noteNew(before) {
    const newest = newestStored(before);
    const me = store.me.peek()?.id;
    /** @type {Message[]} */
    const fresh = [];
    for (let at = items.length - 1; at >= 0; at -= 1) {
      const { state, created, sender } = items[at];
      if (state !== 'stored') continue;
      if (created <= newest) break;
      if (sender !== me) fresh.unshift(items[at]);
    }
    if (fresh.length === 0 || !timeline.atEnd.peek()) return;
    for (const message of fresh.slice(-3)) {
      on.announce(`${message.senderName}: ${message.text || fileNames(message)}`);
    }
    // After an absence the unread line is above the first new message.
    const old = items.find((message) => message.id === line.peek());
    const isRead = !old || old.created <= Math.max(chat.peek().seen, seenAt);
    if (isRead && !(isAtEnd && isWatched())) line.value = fresh[0].id;
  }

  let isGone = false;
  onCleanup(() => (isGone = true));

  // Runs after the present flush of signals: only then are the rows in the page and measurable.
  effect(() => {
    const next = timeline.items.value;
    if (timeline.loaded.value && timeline.ready.value) queueMicrotask(() => update(next));
  });

  /** @param {readonly Message[]} next */
  function update(next) {
    if (isGone || next === items) return;
    const before = items;
    items = next;
    if (!isPlaced) {
      place();
      return;
    }
    followReader();
    noteNew(before);
    show(follow(range, before, items, isAtEnd));
    schedule();
  }

  /** The first position: at the first unread message, or at the end. */
  async function place() {
    if (!scroller.isConnected) {
      // There is no layout yet; the observer calls again before the first paint.
      rows.value = rowsOf(items, lastSlice(items.length, 0), 0);
      return;
    }
    const first = timeline.firstUnread.peek();
    if (first !== 0 && !items.some((message) => message.id === first)) {
      isPlaced = true;
      await timeline.loadAround(first).catch(() => {});
    }
    isPlaced = true;
    line.value = first;
    const index = items.findIndex((message) => message.id === first && first !== 0);
    isAtEnd = index < 0;
    anchors = [];
    show(index < 0 ? lastSlice(items.length, 0) : sliceAround(index, items.length));
    const element = list.querySelector('.unread-line');
    if (element && index >= 0) scroller.scrollTop += topOf(element) - scroller.clientHeight * LINE_AT;
    else scroller.scrollTop = scroller.scrollHeight;
    record();
    schedule();
  }

  /** @param {number} messageId */
  async function jumpTo(messageId) {
    if (!items.some((message) => message.id === messageId)) await timeline.loadAround(messageId);
    const index = items.findIndex((message) => message.id === messageId);
    if (index < 0) throw Object.assign(new Error(), { code: 'no-such-message' });
    isAtEnd = false;
    isPlaced = true;
    if (index < range.start || index >= range.end) show(sliceAround(index, items.length));
    const element = find(items[index]);
    if (!element) return;
    scroller.scrollTop += topOf(element) - (scroller.clientHeight - element.offsetHeight) / 2;
    record();
    schedule();
    element.classList.add('flash');
    setTimeout(() => element.classList.remove('flash'), FLASH_MS);
  }

  async function toEnd() {
    if (!timeline.atEnd.peek()) await timeline.jumpToNewest();
    isAtEnd = true;
    isPlaced = true;
    show(lastSlice(items.length, 0));
    schedule();
  }

  /** @param {Message} message */
  function find(message) {
    return /** @type {HTMLElement | null} */ (
      list.querySelector(`article[data-key="${CSS.escape(keyOf(message))}"]`));
  }

  const observer = new ResizeObserver(() => {
    if (!isPlaced) timeline.loaded.peek() && timeline.ready.peek() && place();
    else if (!followReader()) restore();
    schedule();
  });
  observer.observe(scroller);
  observer.observe(list);
  addEventListener('focus', schedule);
  document.addEventListener('visibilitychange', schedule);
  onCleanup(() => {
    observer.disconnect();
    cancelAnimationFrame(frame);
    clearTimeout(seenTimer);
    removeEventListener('focus', schedule);
    document.removeEventListener('visibilitychange', schedule);
  });
  effect(() => {
    line.value;
    queueMicrotask(() => isPlaced && !isGone && show(range));
  });

  return {
    element: h('div', { class: 'timeline' }, scroller,
      when(() => showsJump.value, () => jumpButton(chat, () => {
        scroller.focus({ preventScroll: true });
        toEnd().catch(() => {});
      }))),
    jumpTo,
    toEnd,
    find,
    focus: () => scroller.focus(),
    markRead: () => {
      line.value = 0;
      const newest = newestStored(items);
      if (newest) markSeen(Math.max(newest, chat.peek().lastTime));
    },
  };
}

/**
 * @param {import('./view.js').ReadonlySignal<Chat>} chat
 * @param {() => void} onclick
 */
function jumpButton(chat, onclick) {
  const count = () => Math.min(chat.value.unread, 999);
  return h('button', {
    class: 'jump', onclick,
    'aria-label': () => t('Jump to newest') + (count() ? ` ${count()}` : ''),
  }, icon('down'), () => count() > 0 && h('span', { class: 'badge' }, String(count())));
}

function skeleton() {
  return h('div', { class: 'skeletons', 'aria-hidden': 'true' },
    [0, 1, 2].map((n) => h('div', { class: `skeleton s${n}` })));
}

/**
 * Arrow keys move between messages, Enter and the menu key open the menu of one.
 * @param {KeyboardEvent} event
 * @param {HTMLElement} list
 * @param {(act: string, message: Message, element: HTMLElement, event: Event) => void} act
 * @param {(element: Element | null) => Message | undefined} messageOf
 */
function rowKey(event, list, act, messageOf) {
  const target = /** @type {HTMLElement} */ (event.target);
  const article = target.closest('article');
  const isArrow = event.key === 'ArrowUp' || event.key === 'ArrowDown';
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  if (isArrow && (target === article || target === event.currentTarget)) {
    const all = /** @type {HTMLElement[]} */ ([...list.querySelectorAll('article')]);
    const at = article ? all.indexOf(article) : all.length;
    const next = all[event.key === 'ArrowUp' ? at - 1 : at + 1];
    if (!next) return;
    event.preventDefault();
    next.focus({ preventScroll: true });
    next.scrollIntoView({ block: 'nearest' });
  } else if (target === article && (event.key === 'Enter' || event.key === 'ContextMenu')) {
    const message = messageOf(article);
    if (!message) return;
    event.preventDefault();
    act('menu', message, article, event);
  }
}

const LONG_PRESS_MS = 450;
/** Movement of a finger, in pixels, above which a press is a scroll. */
const LONG_PRESS_PX = 10;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let pressTimer;
/** Some browsers send `contextmenu` for a long press as well, others never do. */
let pressedAt = -Infinity;

/**
 * Maps DOM events inside a message to actions.
 * @param {any} event
 * @param {Message} message
 * @param {(act: string, message: Message, element: HTMLElement, event: Event) => void} act
 */
function rowEvent(event, message, act) {
  const target = /** @type {HTMLElement} */ (event.target);
  const article = /** @type {HTMLElement} */ (target.closest('article'));
  const button = /** @type {HTMLElement | null} */ (target.closest('[data-act]'));
  if (event.type === 'click') {
    if (button) act(String(button.dataset.act), message, button, event);
  } else if (event.type === 'contextmenu') {
    // Links and selected text keep the browser's menu.
    if (target.closest('a') || String(getSelection()) !== '') return;
    event.preventDefault();
    clearTimeout(pressTimer);
    if (performance.now() - pressedAt > 1000) act('menu', message, article, event);
  } else if (event.type === 'dblclick') {
    if (!target.closest('.bubble')) act('reply', message, article, event);
  } else if (event.pointerType !== 'mouse') longPress(event, article, () =>
    act('menu', message, article, event));
}

/**
 * @param {PointerEvent} event
 * @param {HTMLElement} article
 * @param {() => void} run
 */
function longPress(event, article, run) {
  const end = () => {
    clearTimeout(pressTimer);
    for (const type of ['pointerup', 'pointercancel', 'pointermove']) {
      removeEventListener(type, /** @type {any} */ (type === 'pointermove' ? move : end));
    }
  };
  const move = (/** @type {PointerEvent} */ next) => {
    const way = Math.hypot(next.clientX - event.clientX, next.clientY - event.clientY);
    if (way > LONG_PRESS_PX) end();
  };
  clearTimeout(pressTimer);
  pressTimer = setTimeout(() => {
    end();
    pressedAt = performance.now();
    navigator.vibrate?.(10);
    // The click when the finger is lifted must not reach the menu.
    addEventListener('click', swallow, { capture: true, once: true });
    setTimeout(() => removeEventListener('click', swallow, { capture: true }), 700);
    run();
  }, LONG_PRESS_MS);
  for (const type of ['pointerup', 'pointercancel', 'pointermove']) {
    addEventListener(type, /** @type {any} */ (type === 'pointermove' ? move : end));
  }
}

/** @param {Event} event */
function swallow(event) {
  event.preventDefault();
  event.stopPropagation();
}

// --- 3. A message -------------------------------------------------------------------------------

/**
 * @param {import('./view.js').ReadonlySignal<Row>} row
 * @param {import('./view.js').ReadonlySignal<Chat>} chat
 * @param {import('./view.js').ReadonlySignal<number>} line
 */
function renderRow(row, chat, line) {
  const { kind, time } = row.peek();
  if (kind === 'day') return h('div', { class: 'day' }, h('span', null, () => dayName(time)));
  if (kind === 'unread') {
    return h('div', {
      class: 'unread-line', role: 'separator', 'aria-label': t('New messages'),
    }, h('span', null, t('New messages')));
  }
  return renderMessage(/** @type {any} */ (row), chat);
}

/** @param {Message} message */
const fileNames = (message) => message.files.map((file) => plain(file.name)).join(', ');

/**
 * @param {import('./view.js').ReadonlySignal<Row & {kind: 'message'}>} row
 * @param {import('./view.js').ReadonlySignal<Chat>} chat
 */
function renderMessage(row, chat) {
  const message = () => row.value.message;
  const { sender, created } = row.peek().message;
  const isMine = sender === store.me.peek()?.id;
  const isGroup = chat.peek().kind === 'group';
  const time = formatTime('time', created);
  const name = () => message().senderName || '…';
  return h('article', {
    class: () => classes(row.value, isMine),
    'data-key': keyOf(row.peek().message),
    tabindex: -1,
    'aria-label': () => `${name()}, ${time}: ${spoken(message())}`,
  },
  h('div', { class: 'bubble' },
    isGroup && !isMine && match(() => (row.value.isLast ? name() : ''),
      (shown) => shown && avatar(sender, shown)),
    match(() => (isGroup && !isMine && row.value.isFirst ? name() : ''), (shown) => (shown
      ? h('div', { class: 'sender', style: { '--hue': String(hue(sender)) } }, shown)
      : h('span', { class: 'sr-only' }, name))),
    match(() => partsKey(message()), () => body(message(), h('span', { class: 'meta' },
      when(() => message().edited && !message().deleted,
        () => h('span', { class: 'edited' }, t('edited'))),
      h('time', {
        datetime: new Date(created / 1000).toISOString(), title: formatTime('full', created),
      }, time),
      isMine && match(() => tickOf(message(), chat.value), tick)))),
    h('button', {
      class: 'message-more', 'aria-label': t('More'), 'data-act': 'menu',
      tabindex: -1, 'aria-haspopup': 'menu',
    })),
  match(() => reactionsKey(message()), () => reactionChips(message())),
  match(() => `${message().state} ${message().reason ?? ''}`, () => failure(message())));
}

/**
 * @param {Row & {kind: 'message'}} row
 * @param {boolean} isMine
 */
function classes({ message, isFirst, isLast }, isMine) {
  return ['message', isMine ? 'mine' : 'theirs', isFirst && 'first', isLast && 'last',
    message.deleted && 'deleted', message.mentionsMe && 'mentions', message.state,
    isBigEmoji(message) && 'big-emoji', isBare(message) && 'bare'].filter(Boolean).join(' ');
}

/** What a screen reader says of a message. @param {Message} message */
function spoken(message) {
  if (message.deleted) return t('Message deleted');
  return [message.text, fileNames(message)].filter(Boolean).join(', ');
}

/** Up to three emoji alone are shown large. @param {Message} message */
function isBigEmoji({ text, files, reply, deleted }) {
  return !deleted && !reply && files.length === 0 && text.length > 0 && text.length < 30
    && /^(\p{Extended_Pictographic}|\p{RI}\p{RI})(\p{EMod}|\uFE0F|\u200D\p{Extended_Pictographic})*( ?(\p{Extended_Pictographic}|\p{RI}\p{RI})(\p{EMod}|\uFE0F|\u200D\p{Extended_Pictographic})*){0,2}$/u.test(text);
}

/** Images without text fill their bubble. @param {Message} message */
function isBare(message) {
  return message.text === '' && !message.reply && message.files.length > 0
    && message.files.every(isImage);
}

/** What makes the body be rendered anew. @param {Message} message */
function partsKey({ text, deleted, edited, files, reply }) {
  return JSON.stringify([text, deleted, edited, files.map((file) => file.id),
    reply && [reply.id, reply.text, reply.deleted, reply.senderName]]);
}

/**
 * The parts of a message. Time and state are in the last line of the text if they fit.
 * @param {Message} message
 * @param {Node} meta
 */
function body(message, meta) {
  if (message.deleted) return h('div', { class: 'text' }, t('Message deleted'), meta);
  const images = message.files.filter(isImage);
  const cards = message.files.filter((file) => !isImage(file));
  return [
    message.reply && quote(message.reply),
    images.length > 0 && h('div', { class: `images n${Math.min(images.length, 4)}` },
      images.map((file) => imageBox(file, images.length === 1))),
    cards.map(fileCard),
    message.text ? h('div', { class: 'text', dir: 'auto' }, toNodes(message.text, {}), meta) : meta,
  ];
}

/** @param {import('./types.js').Quote} reply */
function quote(reply) {
  return h('button', {
    class: 'quote', 'data-act': 'jump', tabindex: -1,
    style: { '--hue': String(hue(reply.sender)) },
  },
  h('span', { class: 'quote-name' }, reply.senderName || '…'),
  h('span', { class: 'quote-text' }, reply.deleted ? t('Message deleted') : reply.text || '…'));
}

/**
 * @param {Message} message
 * @param {Chat} chat
 */
function tickOf(message, chat) {
  if (message.state !== 'stored' || message.deleted) return message.state;
  return chat.peer && chat.peer.seen >= message.created ? 'seen' : 'stored';
}

/** @param {string} state */
function tick(state) {
  if (state === 'failed') return null;
  if (state === 'sending') {
    return [icon('clock', 'tick'), h('span', { class: 'sending-text' }, t('Sending…'))];
  }
  return [icon(state === 'seen' ? 'checks' : 'check', `tick ${state}`),
    h('span', { class: 'sr-only' }, state === 'seen' ? t('Seen') : t('Sent'))];
}

/** @param {Message} message */
function failure(message) {
  if (message.state !== 'failed') return null;
  return h('div', { class: 'failed-line' }, icon('alert'),
    h('span', null, t('Not sent')),
    message.reason && h('span', { class: 'failed-reason' },
      explain({ code: message.code, text: message.reason })),
    h('span', { class: 'failed-acts' },
      h('button', { class: 'link', 'data-act': 'retry' }, t('Try again')),
      h('button', { class: 'link', 'data-act': 'discard' }, t('Discard'))));
}

/** @param {Message} message */
const reactionsKey = ({ reactions, deleted }) =>
  deleted ? '' : reactions.map((one) => `${one.emoji}${one.count}${one.mine}`).join(' ');

/** @param {Message} message */
function reactionChips(message) {
  if (message.deleted || message.reactions.length === 0) return null;
  const users = store.users.peek();
  return h('div', { class: 'chips' }, message.reactions.map(({ emoji, count, mine, users: ids }) =>
    h('button', {
      class: 'chip', 'data-act': 'react', 'data-emoji': emoji, tabindex: -1,
      'aria-pressed': String(mine),
      title: ids.map((id) => users.get(id)?.name).filter(Boolean).join(', ') || null,
    }, h('span', { class: 'emoji' }, emoji), ' ', h('span', { class: 'count' }, String(count)))));
}

// --- Files --------------------------------------------------------------------------------------

const IMAGE_TYPES = new Set(['image/png', 'image/jpeg', 'image/gif', 'image/webp', 'image/avif']);
/** Larger images are shown as cards, and load on request. */
const IMAGE_BYTES_MAX = 12_000_000;

/** @param {FileInfo} file */
export const isImage = (file) => IMAGE_TYPES.has(file.type) && file.width > 0 && file.height > 0
  && file.size <= IMAGE_BYTES_MAX;

/** Images load when they come near the screen. @type {IntersectionObserver | null} */
let nearby = null;
/** @type {WeakMap<Element, () => void>} */
const loads = new WeakMap();

/**
 * @param {Element} element
 * @param {() => void} load
 */
function whenNear(element, load) {
  nearby ??= new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      nearby?.unobserve(target);
      loads.get(target)?.();
    }
  }, { rootMargin: '400px' });
  loads.set(element, load);
  nearby.observe(element);
}

/**
 * The box of an image, which has its final size before the image is loaded.
 * @param {FileInfo} file
 * @param {boolean} isAlone
 */
function imageBox(file, isAlone) {
  const image = h('img', { alt: file.name, draggable: false });
  const box = h('button', {
    class: 'image', 'data-act': 'view', 'data-file': file.id, tabindex: -1,
    style: isAlone ? { '--w': String(file.width), '--h': String(file.height) } : {},
  }, image);
  whenNear(box, async () => {
    try {
      image.src = await store.actions.fileUrl(file);
      await image.decode();
      box.classList.add('loaded');
    } catch (error) {
      box.classList.add('broken');
      box.append(h('span', { class: 'broken-text' }, explain(error)));
    }
  });
  return box;
}

/** @param {FileInfo} file */
function fileCard(file) {
  const got = signal(-1);
  // The button contains the name only, but covers the whole card.
  const button = h('button', {
    class: 'file-name', 'data-file': file.id, tabindex: -1,
    title: t('Save {name}', { name: file.name }),
    onclick: async () => {
      if (got.peek() >= 0) return;
      got.value = 0;
      try {
        await store.actions.download(file, (bytes) => (got.value = bytes));
      } catch (error) {
        fail(error);
      }
      got.value = -1;
    },
  }, h('bdi', null, plain(file.name)));
  return h('div', { class: 'file-card' },
    h('span', { class: 'file-icon' }, icon('file')),
    h('span', { class: 'file-about' }, button,
      h('span', { class: 'file-size' }, () => (got.value < 0 ? formatSize(file.size)
        : `${Math.round((100 * got.value) / file.size)} %`))),
    icon('save', 'file-save'));
}
