/**
 * Transfers of files: uploads that resume after reconnects, downloads, photos without metadata.
 */

import { OFFLINE } from './link.js';

/** @typedef {import('./types.js').Failure} Failure */
/** @typedef {import('./types.js').FileInfo} FileInfo */
/** @typedef {import('./tabs.js').CallOptions} CallOptions */
/** @typedef {import('./engine.js').Engine} Engine */

/** Bytes per frame, below the limit of 64 KiB; PIECES frames are in flight at once. */
const PIECE = 60_000;
const PIECES = 4;
const BEGINS_MAX = 3;
const FETCH_PIECE = 65_536;
/** Images cached in this browser, at most; the least recently shown ones are dropped. */
const KEPT_MAX = 100;
const KEPT_BYTES_MAX = 2_000_000;
const IMAGE_MAX_PX = 1600;
const JPEG_QUALITY = 0.85;

/** @type {Failure} */
const ABORTED = { code: 'aborted', text: '', number: 0 };

/**
 * @param {Engine} engine
 * @param {CallOptions} options
 * @param {number} chat
 * @param {Blob} blob
 * @param {{name: string, type: string, width: number, height: number}} info
 * @returns {Promise<FileInfo>}
 */
export async function upload(engine, { onProgress, signal }, chat, blob, info) {
  const { width, height } = info;
  const [name, type] = [cleanName(info.name), cleanType(info.type)];
  const begin = () => overReconnects(engine, () =>
    engine.link.request('BEGIN_FILE', [chat, blob.size, width, height, type, name]));
  let id = await begin();
  let begins = 1;
  let stored = 0;
  while (stored < blob.size) {
    try {
      stored = await overReconnects(engine, () => put(engine, id, blob, stored, signal, onProgress));
    } catch (error) {
      const failure = /** @type {Failure} */ (error);
      if (failure.code === 'bad-offset') stored = failure.number;
      else if (failure.code === 'no-such-file' && begins < BEGINS_MAX) {
        // The server has dropped the incomplete upload: begin again.
        begins += 1;
        stored = 0;
        id = await begin();
      } else {
        if (failure.code === 'aborted') engine.link.request('END_FILE', [id]).catch(() => undefined);
        throw error;
      }
    }
  }
  return { id, size: blob.size, width, height, type, name };
}

/**
 * Sends pieces from an offset on, several at a time, up to the end or the first failure.
 * @param {Engine} engine
 * @param {number} id
 * @param {Blob} blob
 * @param {number} offset
 * @param {AbortSignal | undefined} signal
 * @param {((sent: number) => void) | undefined} onProgress
 * @returns {Promise<number>} the size that is stored
 */
async function put(engine, id, blob, offset, signal, onProgress) {
  let stored = offset;
  /** @type {Promise<void>[]} */
  const pending = [];
  for (let at = offset; at < blob.size; at += PIECE) {
    if (signal?.aborted) throw ABORTED;
    if (pending.length >= PIECES) await pending.shift();
    const bytes = new Uint8Array(await blob.slice(at, at + PIECE).arrayBuffer());
    const piece = engine.link.request('PUT_FILE', [id, at, bytes]).then((size) => {
      stored = size;
      onProgress?.(size);
    });
    // Only the awaited request reports; the ones after it fail for the same reason.
    piece.catch(() => undefined);
    pending.push(piece);
  }
  for (const piece of pending) await piece;
  if (signal?.aborted) throw ABORTED;
  return stored;
}

/**
 * @template T
 * @param {Engine} engine
 * @param {() => Promise<T>} job
 * @returns {Promise<T>}
 */
async function overReconnects(engine, job) {
  for (;;) {
    await engine.online();
    try {
      return await job();
    } catch (error) {
      const { code, number } = /** @type {Failure} */ (error);
      const isTemporary = ['storage-failed', 'shutting-down', 'rate-limited', 'login-required'].includes(code);
      if (code !== OFFLINE.code && !isTemporary) throw error;
      await new Promise((resolve) => { setTimeout(resolve, Math.max(200, number * 1000)); });
    }
  }
}

/**
 * Reads a file. Recently read images are cached, and available offline.
 * @param {Engine} engine
 * @param {CallOptions} options
 * @param {FileInfo} file
 * @returns {Promise<Blob>}
 */
export async function fetchFile(engine, options, file) {
  const isKept = isRaster(file.type) && file.size <= KEPT_BYTES_MAX;
  const cache = isKept ? await globalThis.caches?.open(engine.imageCache).catch(() => undefined) : undefined;
  const key = `/image/${file.id}`;
  const kept = await cache?.match(key).catch(() => undefined);
  if (kept) return kept.blob();
  const blob = await download(engine, options, file);
  if (cache) keep(cache, key, blob).catch(() => undefined);
  return blob;
}

/**
 * @param {Cache} cache
 * @param {string} key
 * @param {Blob} blob
 */
async function keep(cache, key, blob) {
  await cache.put(key, new Response(blob, { headers: { 'Content-Type': blob.type } }));
  const keys = await cache.keys();
  for (const old of keys.slice(0, -KEPT_MAX)) await cache.delete(old);
}

/**
 * @param {Engine} engine
 * @param {CallOptions} options
 * @param {FileInfo} file
 * @returns {Promise<Blob>}
 */
async function download(engine, { onProgress, signal }, { id, size, type }) {
  /** @type {Uint8Array[]} */
  const pieces = [];
  let got = 0;
  while (got < size) {
    if (signal?.aborted) throw ABORTED;
    const offsets = Array.from({ length: PIECES }, (_, index) => got + index * FETCH_PIECE)
      .filter((offset) => offset < size);
    const round = await overReconnects(engine, () => Promise.all(
      offsets.map((offset) => engine.link.request('GET_FILE', [id, offset, FETCH_PIECE])),
    ));
    const before = got;
    for (const piece of round) {
      pieces.push(piece.slice());
      got += piece.length;
    }
    if (got === before) throw { code: 'no-such-file', text: 'the file is shorter than it was announced', number: 0 };
    onProgress?.(got);
  }
  return new Blob(/** @type {BlobPart[]} */ (pieces), { type });
}

/** Image types that browsers show and that cannot contain scripts. */
const RASTER = new Set(['image/png', 'image/jpeg', 'image/gif', 'image/webp', 'image/avif']);

/** @param {string} type */
export const isRaster = (type) => RASTER.has(type);

/**
 * Re-encodes a photo, which removes metadata such as its place and camera. Other files stay as
 * they are.
 * @param {Blob} file
 * @param {string} name
 */
export async function prepare(file, name) {
  const type = cleanType(file.type);
  const as = { blob: file, name: cleanName(name), type, width: 0, height: 0 };
  if (!isRaster(type)) return as;
  const image = await createImageBitmap(file).catch(() => null);
  if (!image) return as;
  // A GIF may be animated: it stays as it is.
  if (type === 'image/gif') return { ...as, width: image.width, height: image.height };
  const scale = Math.min(1, IMAGE_MAX_PX / Math.max(image.width, image.height));
  const [width, height] = [image.width, image.height].map((side) => Math.max(1, Math.round(side * scale)));
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext('2d');
  const drawn = type === 'image/png' ? 'image/png' : 'image/jpeg';
  if (drawn === 'image/jpeg' && context) {
    // Transparent pixels would become black.
    context.fillStyle = '#fff';
    context.fillRect(0, 0, width, height);
  }
  context?.drawImage(image, 0, 0, width, height);
  image.close();
  const blob = await canvas.convertToBlob({ type: drawn, quality: JPEG_QUALITY });
  return { blob, name: drawn === type ? as.name : `${as.name.replace(/\.[^.]*$/, '')}.jpg`, type: drawn, width, height };
}

/** @param {string} type as a browser says it, perhaps with parameters */
function cleanType(type) {
  const bare = type.split(';')[0].trim().toLowerCase();
  return /^[a-z0-9!#$&^_.+-]+\/[a-z0-9!#$&^_.+-]+$/.test(bare) && bare.length <= 127
    ? bare : 'application/octet-stream';
}

/**
 * Converts a name to a valid one for the server: up to 255 bytes, no path, no control characters.
 * @param {string} name
 */
export function cleanName(name) {
  // eslint-disable-next-line no-control-regex
  let clean = name.normalize('NFC').replace(/[\u0000-\u001f\u007f-\u009f/\\]/g, '_').trim();
  while (new TextEncoder().encode(clean).length > 255) {
    const dot = clean.lastIndexOf('.');
    const tail = dot > 0 && clean.length - dot <= 12 ? clean.slice(dot) : '';
    clean = `${[...clean.slice(0, clean.length - tail.length)].slice(0, -1).join('')}${tail}`;
  }
  return clean === '' || clean === '.' || clean === '..' ? 'file' : clean;
}
