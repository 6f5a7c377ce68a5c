/**
 * Files: the send dialog, uploads, and the image viewer.
 */
import { each, h, openDialog, signal, when } from '../view.js';
import { uploads } from './chat.js';
import {
  explain, fail, formatSize, formatTime, icon, iconButton, plain, showToast, store, t, tn,
} from './kit.js';

/** @typedef {import('../types.js').FileInfo} FileInfo */

const FILES_MAX = 10;
let count = 0;

/**
 * Opens the send dialog: shows the files and asks for a caption.
 * @param {number} chatId
 * @param {File[]} files
 * @param {() => number | undefined} takeReply the message that is answered
 */
export async function openSendFiles(chatId, files, takeReply) {
  const max = store.server.peek()?.maxFile ?? 0;
  const usable = files.filter((file) => file.size > 0 && file.size <= max).slice(0, FILES_MAX);
  const refused = files.filter((file) => file.size > max);
  if (usable.length === 0) {
    fail({ code: '', text: refused.length > 0
      ? t('{name} is too large: {size}, and this server accepts {max}.', {
        name: refused[0].name, size: formatSize(refused[0].size), max: formatSize(max),
      }) : files.length > 0 ? t('This file is empty.')
        : t('Folders cannot be sent. Choose the files in them.') });
    return;
  }
  const chosen = signal(usable);
  /** @type {string[]} */
  const urls = [];
  const keepsOriginal = signal(false);
  const hasImages = usable.some((file) => file.type.startsWith('image/'));
  const caption = signal('');
  const answer = await openDialog({ title: t('Send file'), class: 'send-file' }, (close) => {
    const list = h('ul', { class: 'send-list' });
    each(list, () => chosen.value, (file) => file, (row) => sendRow(row.peek(), urls, () => {
      chosen.value = chosen.value.filter((file) => file !== row.peek());
      if (chosen.value.length === 0) close();
    }));
    return h('form', {
      onsubmit: (/** @type {Event} */ event) => {
        event.preventDefault();
        close(/** @type {any} */ (true));
      },
    }, list,
    files.length > usable.length && h('p', { class: 'hint' }, tn(
      '{n} file was left out: too large, empty, or more than ten.',
      '{n} files were left out: too large, empty, or more than ten.',
      files.length - usable.length)),
    h('div', { class: 'field' },
      h('input', {
        'aria-label': t('Caption'), placeholder: t('Add a caption'), autocomplete: 'off', dir: 'auto',
        oninput: (/** @type {any} */ event) => (caption.value = event.target.value),
      })),
    hasImages && h('label', { class: 'check' },
      h('input', {
        type: 'checkbox',
        onchange: (/** @type {any} */ event) => (keepsOriginal.value = event.target.checked),
      }),
      h('span', null, t('Send photos as they are')),
      when(() => keepsOriginal.value, () => h('span', { class: 'hint' },
        t('They keep the place and the camera data that are in them.')))),
    h('div', { class: 'dialog-actions' },
      h('button', { class: 'button', onclick: () => close() }, t('Cancel')),
      h('button', { type: 'submit', class: 'button primary', autofocus: true }, t('Send'))));
  });
  urls.forEach((url) => URL.revokeObjectURL(url));
  if (answer) sendFiles(chatId, chosen.peek(), caption.peek(), keepsOriginal.peek(), takeReply());
}

/**
 * @param {File} file
 * @param {string[]} urls to give back when the dialog closes
 * @param {() => void} leaveOut
 */
function sendRow(file, urls, leaveOut) {
  const isImage = /^image\/(png|jpeg|gif|webp|avif)$/.test(file.type);
  let picture = icon('file');
  if (isImage) {
    const url = URL.createObjectURL(file);
    urls.push(url);
    picture = h('img', { src: url, alt: '' });
  }
  return h('li', { class: 'send-row' },
    h('span', { class: 'send-picture' }, picture),
    h('span', { class: 'file-about' },
      h('bdi', { class: 'file-name' }, plain(file.name)),
      h('span', { class: 'file-size' }, formatSize(file.size))),
    iconButton('close', t('Leave out {name}', { name: file.name }), leaveOut));
}

/**
 * Uploads files one after the other, then sends one message with all of them.
 * @param {number} chatId
 * @param {File[]} files
 * @param {string} text
 * @param {boolean} keepsOriginal
 * @param {number | undefined} replyTo
 */
async function sendFiles(chatId, files, text, keepsOriginal, replyTo) {
  const entries = files.map((file) => makeEntry(chatId, file, keepsOriginal));
  uploads.value = [...uploads.value, ...entries.map((entry) => entry.upload)];
  // What is not there yet when the page closes would be lost: the browser asks first.
  addEventListener('beforeunload', askToStay);
  /** @type {FileInfo[]} */
  const sent = [];
  for (const entry of entries) {
    const file = await entry.run();
    if (file) sent.push(file);
  }
  if (sent.length === 0) return;
  try {
    await store.actions.send(chatId, text.trim(), { files: sent, replyTo });
  } catch (error) {
    showToast(explain(error));
  }
}

/** @param {Event} event */
function askToStay(event) {
  if (uploads.peek().length > 0) event.preventDefault();
  else removeEventListener('beforeunload', askToStay);
}

/**
 * @param {number} chat
 * @param {File} file
 * @param {boolean} keepsOriginal
 */
function makeEntry(chat, file, keepsOriginal) {
  const abort = new AbortController();
  const sent = signal(0);
  const error = signal('');
  let again = () => {};
  const upload = {
    key: `upload ${(count += 1)}`,
    chat,
    name: file.name,
    size: file.size,
    sent,
    error,
    cancel: () => {
      abort.abort();
      again();
    },
    retry: () => again(),
  };
  /** @returns {Promise<FileInfo | null>} null: it was cancelled */
  const run = async () => {
    try {
      while (!abort.signal.aborted) {
        try {
          return await uploadOne(chat, file, keepsOriginal, sent, abort.signal);
        } catch (failure) {
          if (abort.signal.aborted) return null;
          error.value = explain(failure);
          await new Promise((resolve) => (again = /** @type {() => void} */ (resolve)));
          error.value = '';
        }
      }
      return null;
    } finally {
      uploads.value = uploads.value.filter((one) => one !== upload);
    }
  };
  return { upload, run };
}

/**
 * @param {number} chat
 * @param {File} file
 * @param {boolean} keepsOriginal
 * @param {import('../view.js').Signal<number>} sent
 * @param {AbortSignal} signal_
 */
async function uploadOne(chat, file, keepsOriginal, sent, signal_) {
  const isImage = file.type.startsWith('image/');
  const ready = isImage && !keepsOriginal
    ? await store.actions.prepare(file, file.name)
    : { blob: file, name: file.name, type: file.type || 'application/octet-stream',
      ...(isImage ? await sizeOf(file) : { width: 0, height: 0 }) };
  const scale = file.size / ready.blob.size;
  return store.actions.upload(chat, ready.blob, ready, (bytes) => (sent.value = bytes * scale),
    signal_);
}

/** The size of an image in pixels; 0 when it is none. @param {Blob} blob */
async function sizeOf(blob) {
  try {
    const bitmap = await createImageBitmap(blob);
    const { width, height } = bitmap;
    bitmap.close();
    return { width: Math.min(width, 65_535), height: Math.min(height, 65_535) };
  } catch {
    return { width: 0, height: 0 };
  }
}

/**
 * Shows an image as large as the window allows.
 * @param {FileInfo} file
 * @param {import('../types.js').Message} message
 */
export function openImage(file, message) {
  openDialog({ title: file.name, class: 'lightbox', hideTitle: true }, (close) => {
    const image = h('img', { alt: file.name });
    store.actions.fileUrl(file).then((url) => (image.src = url), fail);
    return [
      h('div', { class: 'lightbox-bar' },
        h('div', { class: 'lightbox-about' },
          h('strong', null, message.senderName),
          h('div', null, formatTime('full', message.created))),
        iconButton('save', t('Save'), () => store.actions.download(file).catch(fail)),
        iconButton('close', t('Close'), () => close())),
      h('div', {
        class: 'lightbox-place',
        onclick: () => close(),
      }, image),
    ];
  });
}

