import assert from 'node:assert/strict';
import test from 'node:test';

import { parseText } from '../../src/text.js';

/** The tree as one line: `b(…)` bold, `i(…)` italic, `c(…)` code, `[…]` block, `<…>` link. */
function show(text) {
  const one = (token) => {
    switch (token.kind) {
      case 'text': return token.text;
      case 'bold': return `b(${token.children.map(one).join('')})`;
      case 'italic': return `i(${token.children.map(one).join('')})`;
      case 'code': return `c(${token.text})`;
      case 'block': return `[${token.text}]`;
      case 'mention': return `{${token.text}}`;
      default: return `<${token.text}>`;
    }
  };
  return parseText(text).map(one).join('');
}

const CASES = [
  ['plain', 'plain'],
  ['', ''],
  ['*bold* _it_ `code`', 'b(bold) i(it) c(code)'],
  ['*bold _both_*', 'b(bold i(both))'],
  ['_a *b* c_', 'i(a b(b) c)'],
  ['2*3*4', '2*3*4'],
  ['snake_case_name', 'snake_case_name'],
  ['* list\n* item', '* list\n* item'],
  ['*not\nover lines*', '*not\nover lines*'],
  ['*a * b*', 'b(a * b)'],
  ['**', '**'],
  ['`*code*`', 'c(*code*)'],
  ['``', '``'],
  ['a `b', 'a `b'],
  ['```\nlet x = *1*;\n```', '[let x = *1*;]'],
  ['before\n```x```\nafter', 'before[x]after'],
  ['```open', '```open'],
  ['``````', '``````'],
  ['https://example.org/a_b_c', '<https://example.org/a_b_c>'],
  ['(see https://example.org/x).', '(see <https://example.org/x>).'],
  ['https://en.wikipedia.org/wiki/A_(b)', '<https://en.wikipedia.org/wiki/A_(b)>'],
  ['*https://example.org*', 'b(<https://example.org>)'],
  ['mailto:anna@example.org', '<mailto:anna@example.org>'],
  ['mailto:nobody', 'mailto:nobody'],
  ['javascript:alert(1)', 'javascript:alert(1)'],
  ['http://', 'http://'],
  ['xhttps://example.org', 'xhttps://example.org'],
  ['https://example.org"onclick="x', '<https://example.org>"onclick="x'],
  ['data:text/html,<b>', 'data:text/html,<b>'],
  ['hi @anna, @борис.', 'hi {@anna}, {@борис}.'],
  ['anna@example.org', 'anna@example.org'],
  ['@ all', '@ all'],
  ['@anna-maria!', '{@anna-maria}!'],
  ['<b>&amp;</b>', '<b>&amp;</b>'],
];

for (const [text, expected] of CASES) {
  test(`parse ${JSON.stringify(text)}`, () => assert.equal(show(text), expected));
}

/** All that was written, without the marks. */
function written(tokens) {
  return tokens.map((token) => ('children' in token ? written(token.children) : token.text)).join('');
}

test('nothing that was written is lost, and links are http, https or mailto', () => {
  const alphabet = ['*', '_', '`', '```', '@', 'a', 'я', '😀', ' ', '\n', '(', ')', '.', 'https://', 'mailto:', 'x@y.z', '\u202e'];
  let seed = 7;
  const random = () => (seed = (seed * 48271) % 0x7fffffff);
  const bare = (text) => text.replace(/[*_`\n]/g, '');
  for (let round = 0; round < 5_000; round += 1) {
    const text = Array.from({ length: random() % 30 }, () => alphabet[random() % alphabet.length]).join('');
    const tokens = parseText(text);
    assert.equal(bare(written(tokens)), bare(text), JSON.stringify(text));
    for (const token of tokens) if (token.kind === 'link') assert.match(token.href, /^(https?|mailto):/);
  }
});

test('the longest message parses at once, whatever it holds', () => {
  const units = ['*a ', '_', '*', '`', '*_', ' *_a', '@', 'http://[', 'https://a)', '```', '``` ', 'mailto:', '[](', '\n*'];
  for (const unit of units) {
    const text = unit.repeat(Math.ceil(16_384 / unit.length));
    const began = performance.now();
    parseText(text);
    assert.ok(performance.now() - began < 1_000, JSON.stringify(unit));
  }
});
