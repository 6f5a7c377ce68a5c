/**
 * Renders the text of a message: links, *bold*, _italics_, `code`, ```blocks``` and @names.
 *
 * `parseText` parses it into a tree of tokens in linear time; `toNodes` makes DOM nodes of them.
 * Malformed markup is shown as plain text; no character is dropped.
 */

import { h } from './view.js';

/**
 * @typedef {{kind: 'text'|'code'|'block'|'mention', text: string}
 *   | {kind: 'link', text: string, href: string}
 *   | {kind: 'bold'|'italic', text: string, children: Token[]}} Token
 */

const FENCE = '```';
const START = /[`*_@]|https?:\/\/|mailto:/giu;
const LINK = /(?:https?:\/\/|mailto:)[^\s<>"`]{1,2000}/iuy;
/** Longest link, in characters. Longer ones stay text, because a cut link leads elsewhere. */
const LINK_MAX = 2000;
const NAME = /@[\p{L}\p{N}\p{M}](?:[\p{L}\p{N}\p{M}_.-]{0,30}[\p{L}\p{N}\p{M}])?/uy;
const WORD = /[\p{L}\p{N}]/u;
/** Punctuation that is not part of a link at its end. */
const LINK_END = /[.,;:!?'*_~…]$/u;
const PAIRS = /** @type {const} */ ([['(', ')'], ['[', ']'], ['{', '}']]);

/**
 * @param {string} text
 * @returns {Token[]}
 */
export function parseText(text) {
  /** @type {Token[]} */
  const tokens = [];
  let at = 0;
  for (;;) {
    const open = text.indexOf(FENCE, at);
    const close = open < 0 ? -1 : text.indexOf(FENCE, open + FENCE.length);
    if (close < 0) break;
    const code = text.slice(open + FENCE.length, close).replace(/^\n|\n$/g, '');
    if (code.trim() !== '') {
      parseLines(text.slice(at, open).replace(/\n$/, ''), tokens);
      tokens.push({ kind: 'block', text: code });
      at = close + FENCE.length;
      if (text[at] === '\n') at += 1;
    } else {
      parseLines(text.slice(at, close + FENCE.length), tokens);
      at = close + FENCE.length;
    }
  }
  parseLines(text.slice(at), tokens);
  return tokens;
}

/**
 * Parses each line separately: markup does not span lines.
 * @param {string} text
 * @param {Token[]} tokens
 */
function parseLines(text, tokens) {
  const lines = text.split('\n');
  for (const [index, line] of lines.entries()) {
    parseLine(line, tokens, '');
    if (index < lines.length - 1) pushText(tokens, '\n');
  }
}

/**
 * @param {Token[]} tokens
 * @param {string} text
 */
function pushText(tokens, text) {
  const last = tokens.at(-1);
  if (text === '') return;
  if (last?.kind === 'text') last.text += text;
  else tokens.push({ kind: 'text', text });
}

/**
 * @param {string} line
 * @param {Token[]} tokens
 * @param {string} outer marks that are open already
 */
function parseLine(line, tokens, outer) {
  /** Marks without a closing mark: searching for it again would take quadratic time. */
  let unclosed = outer;
  let shown = 0;
  START.lastIndex = 0;
  for (let match = START.exec(line); match; match = START.exec(line)) {
    const at = match.index;
    const before = at > 0 && WORD.test(charBefore(line, at));
    const mark = match[0];
    /** @type {Token | null} */
    let token = null;
    if (mark === '`') token = parseCode(line, at);
    else if (mark === '*' || mark === '_') {
      if (!before && !unclosed.includes(mark)) {
        token = parseMarked(line, at, mark, outer);
        if (!token && isOpening(line, at)) unclosed += mark;
      }
    } else if (!before) token = mark === '@' ? parseName(line, at) : parseLink(line, at);
    if (!token) {
      START.lastIndex = at + mark.length;
      continue;
    }
    pushText(tokens, line.slice(shown, at));
    tokens.push(token);
    shown = at + token.text.length + (token.kind === 'code' ? 2 : 0);
    START.lastIndex = shown;
  }
  pushText(tokens, line.slice(shown));
}

/**
 * @param {string} line
 * @param {number} at
 */
function charBefore(line, at) {
  const unit = line.charCodeAt(at - 1);
  return unit >= 0xdc00 && unit < 0xe000 ? line.slice(at - 2, at) : line[at - 1];
}

/**
 * @param {string} line
 * @param {number} at
 * @returns {Token | null}
 */
function parseCode(line, at) {
  const end = line.indexOf('`', at + 1);
  return end > at + 1 ? { kind: 'code', text: line.slice(at + 1, end) } : null;
}

/**
 * @param {string} line
 * @param {number} at
 */
const isOpening = (line, at) => at + 1 < line.length && !/\s/.test(line[at + 1]);

/**
 * @param {string} line
 * @param {number} at
 * @param {string} mark
 * @param {string} outer
 * @returns {Token | null}
 */
function parseMarked(line, at, mark, outer) {
  if (!isOpening(line, at)) return null;
  for (let end = line.indexOf(mark, at + 2); end > 0; end = line.indexOf(mark, end + 1)) {
    const next = String.fromCodePoint(line.codePointAt(end + 1) ?? 0x20);
    if (/\s/.test(line[end - 1]) || WORD.test(next)) continue;
    /** @type {Token[]} */
    const children = [];
    const position = START.lastIndex;
    parseLine(line.slice(at + 1, end), children, outer + mark);
    START.lastIndex = position;
    return { kind: mark === '*' ? 'bold' : 'italic', text: line.slice(at, end + 1), children };
  }
  return null;
}

/**
 * @param {string} line
 * @param {number} at
 * @returns {Token | null}
 */
function parseName(line, at) {
  NAME.lastIndex = at;
  const name = NAME.exec(line)?.[0];
  return name ? { kind: 'mention', text: name } : null;
}

/**
 * @param {string} line
 * @param {number} at
 * @returns {Token | null}
 */
function parseLink(line, at) {
  LINK.lastIndex = at;
  let text = LINK.exec(line)?.[0] ?? '';
  if (text.length >= LINK_MAX) return null;
  for (let isShorter = true; isShorter && text !== '';) {
    isShorter = LINK_END.test(text) || PAIRS.some(([open, close]) =>
      text.endsWith(close) && count(text, close) > count(text, open));
    if (isShorter) text = text.slice(0, -1);
  }
  try {
    const url = new URL(text);
    const isWhole = url.protocol === 'mailto:' ? url.pathname.includes('@') : url.hostname !== '';
    return isWhole ? { kind: 'link', text, href: url.href } : null;
  } catch {
    return null;
  }
}

/**
 * @param {string} text
 * @param {string} char
 */
const count = (text, char) => text.split(char).length - 1;

/**
 * @param {string} text
 * @param {{isName?: (name: string) => boolean}} [context] isName: whether `@name` is somebody
 * @returns {(Node | string)[]}
 */
export function toNodes(text, context = {}) {
  return parseText(text).map((token) => toNode(token, context));
}

/**
 * @param {Token} token
 * @param {{isName?: (name: string) => boolean}} context
 * @returns {Node | string}
 */
function toNode(token, context) {
  switch (token.kind) {
    case 'text':
      return token.text;
    case 'code':
      return h('code', null, token.text);
    case 'block':
      return h('pre', null, h('code', null, token.text));
    case 'bold':
    case 'italic': {
      const children = token.children.map((child) => toNode(child, context));
      return h(token.kind === 'bold' ? 'strong' : 'em', null, children);
    }
    case 'mention':
      return context.isName?.(token.text.slice(1)) ?? true
        ? h('span', { class: 'mention' }, token.text) : token.text;
    case 'link': {
      const isHere = new URL(token.href).origin === location.origin;
      return h('a', {
        href: token.href, rel: 'noopener noreferrer nofollow', target: isHere ? null : '_blank',
      }, token.text);
    }
  }
}
