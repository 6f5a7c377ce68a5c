/**
 * Shared by all screens: languages, times, icons, avatars, forms and toasts.
 *
 * The English text is the key of every string: `t('Log in')`. Another language is a module of lang/
 * with a translation for each, loaded when needed. `tn` takes the singular and the plural form.
 */
import { h, openDialog, signal } from '../view.js';

/** @typedef {import('../types.js').Store} Store */
/** @typedef {import('../types.js').Failure} Failure */

/** @type {Store} The state of everything; set once, at the start. */
export let store;
/** @param {Store} value */
export const setStore = (value) => void (store = value);

// --- Settings of this browser -------------------------------------------------------------------

/**
 * Reads a setting. Without storage there is none.
 * @param {string} key
 */
export function setting(key) {
  try {
    return localStorage.getItem(`vestnik.${key}`) ?? '';
  } catch {
    return '';
  }
}

/**
 * @param {string} key
 * @param {string} value
 */
export function saveSetting(key, value) {
  try {
    localStorage.setItem(`vestnik.${key}`, value);
  } catch {
    // Without storage the setting holds until the page is closed.
  }
}

/** Applies the light or dark theme; without a choice the system's. */
export function applyTheme(theme = setting('theme')) {
  const element = document.documentElement;
  if (theme === 'light' || theme === 'dark') element.dataset.theme = theme;
  else delete element.dataset.theme;
}

// --- Languages ----------------------------------------------------------------------------------

/** @type {Record<string, {name: string, load: () => Promise<any>}>} */
export const LANGUAGES = {
  en: { name: 'English', load: async () => ({ default: {} }) },
  ru: { name: 'Русский', load: () => import('../lang/ru.js') },
};

/** The language of the page; screens are rendered again when it changes. */
export const language = signal('en');

/** The language with the reader's region, for times and numbers: en-GB has no a.m. and p.m. */
let locale = 'en';
/** @type {Record<string, string | string[]>} */
let dictionary = {};
let plural = new Intl.PluralRules('en');
/** The order of a language's plural forms in a dictionary. */
const FORMS = ['one', 'few', 'many', 'other'];

/**
 * Loads a language and shows it. Without `code`: the chosen one, or the browser's.
 * @param {string} [code]
 */
export async function setLanguage(code = setting('language')) {
  const wanted = [code, ...navigator.languages.map((tag) => tag.slice(0, 2).toLowerCase())];
  const found = wanted.find((tag) => tag in LANGUAGES) ?? 'en';
  dictionary = (await LANGUAGES[found].load()).default;
  plural = new Intl.PluralRules(found);
  locale = navigator.languages.find((tag) => tag.toLowerCase().startsWith(found)) ?? found;
  formats.clear();
  document.documentElement.lang = found;
  language.value = found;
}

/**
 * Translates; `{name}` in the text is replaced by a value.
 * @param {string} text
 * @param {Record<string, string | number>} [values]
 */
export function t(text, values) {
  return fill(String(dictionary[text] ?? text), values);
}

/**
 * Translates a text with a count, e.g. `tn('{n} member', '{n} members', 3)`.
 * @param {string} one
 * @param {string} many also the key
 * @param {number} n
 * @param {Record<string, string | number>} [values]
 */
export function tn(one, many, n, values) {
  const forms = dictionary[many];
  const text = Array.isArray(forms)
    ? forms[FORMS.indexOf(plural.select(n))] ?? forms[forms.length - 1]
    : plural.select(n) === 'one' ? one : many;
  return fill(text, { n, ...values });
}

/**
 * @param {string} text
 * @param {Record<string, string | number>} [values]
 */
function fill(text, values) {
  return values ? text.replace(/\{(\w+)\}/g, (all, key) => plain(String(values[key] ?? all))) : text;
}

/**
 * A name without bidirectional control characters, which could make `evil.exe` look like an image.
 * @param {string} name
 */
export const plain = (name) => name.replace(/[\u061C\u200E\u200F\u202A-\u202E\u2066-\u2069]/gu, '');

// --- Times and sizes ----------------------------------------------------------------------------

/**
 * Writes 24 hours where the reader does, in a language that the reader may only read: its own form
 * can have a.m. and p.m.
 */
function hours() {
  try {
    const { hourCycle } = new Intl.DateTimeFormat(navigator.language, { hour: 'numeric' }).resolvedOptions();
    // h24 would call the first hour of a day 24.
    if (hourCycle?.[1] === '2') return 'h23';
  } catch {
    // WebKitGTK has a name of the C library here, e.g. `c`.
  }
  return undefined;
}

/** @type {Map<string, any>} Making an Intl format costs more than using it a thousand times. */
const formats = new Map();

/**
 * @param {string} key
 * @param {() => any} make
 */
function format(key, make) {
  let found = formats.get(key);
  if (!found) formats.set(key, (found = make()));
  return found;
}

/** @type {Record<string, Intl.DateTimeFormatOptions>} */
const TIMES = {
  time: { timeStyle: 'short' },
  weekday: { weekday: 'short' },
  day: { day: 'numeric', month: 'short' },
  date: { day: 'numeric', month: 'numeric', year: '2-digit' },
  longDay: { weekday: 'long', day: 'numeric', month: 'long' },
  longDate: { day: 'numeric', month: 'long', year: 'numeric' },
  full: { dateStyle: 'long', timeStyle: 'short' },
};

/**
 * Formats a time in the reader's zone.
 * @param {keyof typeof TIMES} kind
 * @param {number} time microseconds
 * @returns {string}
 */
export function formatTime(kind, time) {
  return format(kind, () => new Intl.DateTimeFormat(locale, { ...TIMES[kind], hourCycle: hours() }))
    .format(new Date(time / 1000));
}

/** The day that was asked for last, with the milliseconds at which it begins and ends. */
let lastDay = { from: 0, to: 0, day: 0 };

/** A number for the day of a time, in the reader's zone. @param {number} time microseconds */
export function dayOf(time) {
  const ms = time / 1000;
  if (ms >= lastDay.from && ms < lastDay.to) return lastDay.day;
  const date = new Date(ms);
  const [year, month, day] = [date.getFullYear(), date.getMonth(), date.getDate()];
  lastDay = {
    from: new Date(year, month, day).getTime(), to: new Date(year, month, day + 1).getTime(),
    day: year * 372 + month * 31 + day,
  };
  return lastDay.day;
}

const DAY_MS = 86_400_000;

/** The present day, for what says `Today`. */
const today = signal(dayOf(Date.now() * 1000));
const zoneNow = () => new Intl.DateTimeFormat().resolvedOptions().timeZone;
/** The reader's time zone, for all times: it changes on a journey. */
export const zone = signal(zoneNow());
export const watchDay = () => setInterval(() => {
  formats.clear();
  lastDay.to = 0;
  zone.value = zoneNow();
  today.value = dayOf(Date.now() * 1000);
}, 30_000);

/**
 * A short form for lists: the time today, the weekday this week, else the date.
 * @param {number} time microseconds
 */
export function shortTime(time) {
  const now = Date.now();
  if (dayOf(time) === today.value) return formatTime('time', time);
  const age = now - time / 1000;
  if (age < 6 * DAY_MS) return formatTime('weekday', time);
  return formatTime(age < 300 * DAY_MS ? 'day' : 'date', time);
}

/**
 * The name of a day, for the line between days.
 * @param {number} time microseconds
 */
export function dayName(time) {
  const now = Date.now();
  if (dayOf(time) === today.value) return t('Today');
  if (dayOf(time) === dayOf((now - DAY_MS) * 1000)) return t('Yesterday');
  return formatTime(now - time / 1000 < 300 * DAY_MS ? 'longDay' : 'longDate', time);
}

/** @param {number} bytes */
export function formatSize(bytes) {
  const units = ['byte', 'kilobyte', 'megabyte', 'gigabyte'];
  let [value, unit] = [bytes, 0];
  for (; value >= 1000 && unit < 3; unit += 1) value /= 1000;
  return format(`size ${unit} ${value < 10}`, () => new Intl.NumberFormat(locale, {
    style: 'unit', unit: units[unit], unitDisplay: unit === 0 ? 'long' : 'short',
    maximumFractionDigits: value < 10 && unit > 0 ? 1 : 0,
  })).format(value);
}

// --- Icons and avatars --------------------------------------------------------------------------

/** Paths in a box of 20 px, with strokes of 1.5 px. */
export const ICONS = {
  alert: 'M10 3 18 17H2ZM10 8v4M10 14.4v.1',
  attach: 'm16.5 9.5-6.4 6.4a4 4 0 0 1-5.7-5.7l6.8-6.8a2.7 2.7 0 0 1 3.8 3.8l-6.8 6.8a1.3 1.3 0 0 1-1.9-1.9l6-6',
  back: 'M12.5 4 6.5 10l6 6',
  bell: 'M5 13V9a5 5 0 0 1 10 0v4l1.5 1.5h-13ZM8.5 17h3',
  'bell-off': 'M5 13V9a5 5 0 0 1 .8-2.7M8 4.4A5 5 0 0 1 15 9v4M15 14.5H3.5L5 13M8.5 17h3M3 3l14 14',
  chat: 'M3 9.5C3 6 6 3.5 10 3.5s7 2.5 7 6-3 6-7 6c-.9 0-1.7-.1-2.5-.3L4 17l.6-3.3C3.6 12.6 3 11.1 3 9.5Z',
  check: 'm4.5 10.5 4 4 7-8.5',
  checks: 'm1.5 10.5 4 4 7-8.5M9.5 14.5l7.5-8.5',
  clock: 'M10 3a7 7 0 1 0 0 14 7 7 0 0 0 0-14ZM10 6v4l2.5 2',
  close: 'm5 5 10 10M15 5 5 15',
  copy: 'M7.5 7.5h8v9h-8zM12.5 7.5v-4h-8v9h3',
  down: 'M10 4v12M5 11l5 5 5-5',
  edit: 'M4 16l.8-3.5 8.7-8.7a1.4 1.4 0 0 1 2 0l.7.7a1.4 1.4 0 0 1 0 2l-8.7 8.7ZM12 5.5l2.5 2.5',
  file: 'M5 2.5h6l4 4v11H5zM11 2.5v4h4',
  invite: 'M8 10a3 3 0 1 0 0-6 3 3 0 0 0 0 6ZM2.5 16.5c.5-3 2.8-4.5 5.5-4.5s5 1.5 5.5 4.5M15.5 6v5M13 8.5h5',
  link: 'M8.5 11.5a3 3 0 0 0 4.2 0l3-3a3 3 0 0 0-4.2-4.2L10.3 5.5M11.5 8.5a3 3 0 0 0-4.2 0l-3 3a3 3 0 0 0 4.2 4.2l1.2-1.2',
  lock: 'M5 9h10v8H5zM7 9V6.5a3 3 0 0 1 6 0V9',
  members: 'M7.5 10a3 3 0 1 0 0-6 3 3 0 0 0 0 6ZM2 16.5c.5-3 2.8-4.5 5.5-4.5s5 1.5 5.5 4.5M13 4.3a3 3 0 0 1 0 5.4M15 12.3c1.6.6 2.7 2 3 4.2',
  more: 'M4.5 10h.01M10 10h.01M15.5 10h.01',
  plus: 'M10 4v12M4 10h12',
  reply: 'M8 5 3 10l5 5M3 10h8c3.5 0 5.5 2 6 5.5',
  save: 'M10 3v10M5.5 9l4.5 4.5L14.5 9M3.5 17h13',
  search: 'M9 3.5a5.5 5.5 0 1 0 0 11 5.5 5.5 0 0 0 0-11ZM13 13l4 4',
  send: 'M3.5 3.5 17 10 3.5 16.5 5.5 10ZM5.5 10H11',
  settings: 'M3 6h6M13 6h4M3 14h4M11 14h6M11 4a2 2 0 1 0 0 4 2 2 0 0 0 0-4ZM9 12a2 2 0 1 0 0 4 2 2 0 0 0 0-4Z',
  shield: 'M10 2.5 16 5v5c0 4-2.8 6.5-6 7.5-3.2-1-6-3.5-6-7.5V5Z',
  smile: 'M10 3a7 7 0 1 0 0 14 7 7 0 0 0 0-14ZM7 11.5c1.5 2.5 4.5 2.5 6 0M7.5 8v.01M12.5 8v.01',
  trash: 'M3.5 5.5h13M8 5.5V3.5h4v2M5 5.5l1 11.5h8l1-11.5M8.5 9v5M11.5 9v5',
};

/**
 * @param {keyof typeof ICONS} name
 * @param {string} [className]
 */
export function icon(name, className = '') {
  return h('svg', { class: `icon ${className}`, viewBox: '0 0 20 20', 'aria-hidden': 'true' },
    h('path', { d: ICONS[name] }));
}

/**
 * A button with an icon only.
 * @param {keyof typeof ICONS} name
 * @param {string} label
 * @param {(event: MouseEvent) => void} onclick
 * @param {Record<string, any>} [props]
 */
export function iconButton(name, label, onclick, props) {
  return h('button', {
    class: 'icon-button', 'aria-label': label, title: label, onclick, ...props,
  }, icon(name));
}

/** The hue of a user or chat: steady, and far from that of the next id. @param {number} id */
export const hue = (id) => Math.round((id * 137.508) % 360);

const segments = 'Segmenter' in Intl ? new Intl.Segmenter() : null;

/** The first letter as people see it: an emoji of several code points is one. @param {string} text */
function firstLetter(text) {
  for (const { segment } of segments?.segment(text) ?? []) return segment;
  return [...text][0] ?? '';
}

/** Up to two letters that stand for a name. @param {string} name */
export function initials(name) {
  const words = name.split(/[\s._-]+/u).filter((word) => /^[\p{L}\p{N}\p{So}]/u.test(word));
  const letters = words.slice(0, 2).map(firstLetter);
  if (letters.length > 1 && /\p{So}/u.test(letters.join(''))) letters.length = 1;
  return letters.join('').toUpperCase() || '#';
}

/**
 * A round picture with initials. It is decorative, since the name is next to it.
 * @param {number} id
 * @param {string} name
 * @param {string} [className]
 */
export function avatar(id, name, className = '') {
  return h('span', {
    class: `avatar ${className}`, 'aria-hidden': 'true', 'data-letters': initials(name),
    style: { '--hue': String(hue(id)) },
  });
}

// --- Notices and failures -----------------------------------------------------------------------

/** The toast: one line at the bottom that disappears by itself. */
export const toast = signal(/** @type {string | null} */ (null));
/** @type {ReturnType<typeof setTimeout> | undefined} */
let toastTimer;
const TOAST_MS = 5000;

/** @param {string} text */
export function showToast(text) {
  clearTimeout(toastTimer);
  toast.value = text;
  toastTimer = setTimeout(() => (toast.value = null), TOAST_MS);
}

/** @type {Record<string, string>} What to say for a code, where the server's words would not do. */
const REASONS = {
  'bad-code': 'This link is no longer valid. Ask for a new one.',
  'bad-credentials': 'Wrong name or password.',
  'bad-invite': 'This invite is not valid: it was used up, ended or has expired.',
  'bad-name': 'This name cannot be used: use letters, digits, “_”, “-” and “.”, up to 32.',
  'bad-query': 'Enter at least one word.',
  forbidden: 'You may not do that.',
  'last-admin': 'A chat needs an admin: make somebody else admin first.',
  'name-taken': 'This name is taken.',
  'no-such-chat': 'There is no such chat.',
  'no-such-message': 'This message is no longer there.',
  'no-such-user': 'There is no such person.',
  'not-member': 'You are not a member of this chat.',
  'not-ready': 'The newest messages are still being indexed. Try again in {n} s.',
  offline: 'There is no connection to the server. Try again when you are back.',
  'password-required': 'This chat asks for a password.',
  'quota-exceeded': 'There is no room for this file on the server.',
  'rate-limited': 'Too many tries. Wait {n} s.',
  'registration-closed': 'This server does not accept new accounts.',
  'storage-failed': 'The server could not store it. Try again.',
  'too-large': 'This is too large for the server.',
  'too-long': 'This is too long.',
  'too-many': 'There are too many different reactions.',
};

/**
 * Whether a part of the page did not load: where the server is there, it has a new version. No
 * browser gives that error a type of its own, but each names the imported module.
 * @param {any} error
 */
export function isMissing(error) {
  const is = /import\w+ (a )?module/i.test(error?.text ?? error?.message);
  if (is && store.connection.peek() === 'online') store.update.value = 'old';
  return is;
}

/**
 * The message for a failed action.
 * @param {unknown} error
 */
export function explain(error) {
  const failure = /** @type {Failure} */ (error);
  if (isMissing(error)) return t(store.update.peek() ? 'There is a new version.' : REASONS.offline);
  const reason = REASONS[failure?.code];
  if (reason) return t(reason, { n: failure.number || 1 });
  if (failure?.code === 'bad-password' && /8/.test(failure.text)) return t('At least 8 characters.');
  return failure?.text || t('That did not work. Try again.');
}

/** Reports a failure that has no place of its own on the screen. @param {unknown} error */
export const fail = (error) =>
  void (isMissing(error) && store.update.peek() ? 0 : showToast(explain(error)));

// --- Forms --------------------------------------------------------------------------------------

let fieldCount = 0;

/**
 * A text field with its label above.
 * @param {string} label
 * @param {Record<string, any>} props of the input; `hint` is a line below it
 */
export function field(label, { hint, ...props }) {
  const id = `field-${(fieldCount += 1)}`;
  return h('div', { class: 'field' },
    h('label', { for: id }, label),
    h('input', { id, autocomplete: 'off', 'aria-describedby': hint ? `${id}-hint` : null, ...props }),
    hint ? h('p', { class: 'hint', id: `${id}-hint` }, hint) : null);
}

/**
 * A form that runs one action at a time and shows its error.
 * @param {Record<string, any>} props
 * @param {(form: HTMLFormElement) => Promise<any>} action
 * @param {(submit: (label: string, className?: string, props?: Record<string, any>) => Element)
 *   => import('../view.js').Child} render gets what makes the button that sends it
 */
export function actionForm(props, action, render) {
  const isBusy = signal(false);
  const error = signal(/** @type {string | null} */ (null));
  return h('form', {
    ...props,
    onsubmit: async (/** @type {SubmitEvent} */ event) => {
      event.preventDefault();
      if (isBusy.peek()) return;
      error.value = null;
      isBusy.value = true;
      try {
        await action(/** @type {HTMLFormElement} */ (event.currentTarget ?? event.target));
      } catch (failure) {
        error.value = explain(failure);
      }
      isBusy.value = false;
    },
  }, render((label, className = 'primary', more) => h('button', {
    type: 'submit', class: `button ${className}`,
    'aria-disabled': () => (isBusy.value ? 'true' : null), ...more,
  }, label)), () => error.value && h('p', { class: 'error', role: 'alert' },
    icon('alert'), h('span', null, error.value)));
}

// --- The rest -----------------------------------------------------------------------------------

/**
 * Whether a key belongs to an input method, which takes Enter and arrows for itself. Safari ends
 * the composition before the key that did so, and marks that one by its code alone.
 * @param {KeyboardEvent} event
 */
export const isComposing = (event) => event.isComposing || event.keyCode === 229;

/** One screen at a time: the list, or the chat. */
export const isPhone = matchMedia('(max-width: 719px)');
/** The primary pointer is a finger. */
export const isTouch = matchMedia('(pointer: coarse)');

/**
 * Asks before something that cannot be undone.
 * @param {{title: string, text: string, button: string}} what
 * @returns {Promise<boolean>}
 */
export async function confirmDialog({ title, text, button }) {
  const answer = await openDialog({ title, role: 'alertdialog', class: 'small' }, (close) => [
    h('p', { class: 'dialog-text' }, text),
    h('div', { class: 'dialog-actions' },
      h('button', { class: 'button', onclick: () => close(false) }, t('Cancel')),
      h('button', { class: 'button danger', onclick: () => close(true) }, button)),
  ]);
  return answer === true;
}

/**
 * A dialog with the button that closes it in its head.
 * @template R
 * @param {{title: string, class?: string}} options
 * @param {(close: (result?: R) => void) => import('../view.js').Child} render
 */
export function openPanel(options, render) {
  return openDialog({
    ...options,
    header: h('button', {
      class: 'icon-button', 'aria-label': t('Close'),
      onclick: (/** @type {any} */ event) => event.currentTarget.closest('dialog').close(),
    }, icon('close')),
  }, render);
}

/** @param {string} text */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without a secure context there is no clipboard API; the old command still works.
    const area = h('textarea', { class: 'sr-only', value: text, 'aria-hidden': 'true' });
    (document.querySelector('dialog[open]') ?? document.body).append(area);
    area.select();
    document.execCommand('copy');
    area.remove();
  }
  showToast(t('Copied'));
}
