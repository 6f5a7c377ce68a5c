import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import test from 'node:test';

import { encode } from '../../src/qr.js';

/** As another encoder draws it under the same mask, and as a scanner read it. */
const LETTER_H = [
  '#######.#.#...#######',
  '#.....#..##.#.#.....#',
  '#.###.#.####..#.###.#',
  '#.###.#..#.##.#.###.#',
  '#.###.#..####.#.###.#',
  '#.....#.##.##.#.....#',
  '#######.#.#.#.#######',
  '.........##.#........',
  '#.#...##.......#..#.#',
  '#.#......#.#.###.##..',
  '#.#.#####..###.###.##',
  '###.##...#.#.###.##..',
  '##.#..##..##########.',
  '........###.........#',
  '#######.#.#...#...#.#',
  '#.....#..#..#...#..#.',
  '#.###.#..##...#...###',
  '#.###.#...##.###.##..',
  '#.###.#.##.###.###.##',
  '#.....#..#.#.###.##..',
  '#######.###########.#',
];

/** Length of a text, and the digest of its rows; each version from 1 to 10 is among them. */
const DIGESTS = [
  [1, '848f621f7ecfca7e'],
  [14, 'ed38044499eefb34'],
  [20, '15463a74537c7a2e'],
  [26, '8cda7a495885eca5'],
  [40, 'ebc913640b00d156'],
  [42, '24b1717c9c5cd2ac'],
  [62, '19b4186c37c21499'],
  [84, '9348cb971e91172a'],
  [106, 'dd60db6b28bc4e39'],
  [122, '178207e8c3fbbb0d'],
  [152, '557c190d9111e4fc'],
  [180, 'fd7a6c91381cbb05'],
  [213, '35bf4eb05e44358e'],
];

const rows = (text) => encode(text).map((row) => row.map((isDark) => (isDark ? '1' : '0')).join(''));

test('one letter, module by module', () => {
  assert.deepEqual(rows('h'), LETTER_H.map((row) => row.replaceAll('#', '1').replaceAll('.', '0')));
});

for (const [length, digest] of DIGESTS) {
  test(`${length} bytes`, () => {
    const text = 'https://chat.example.org/#invite='.repeat(9).slice(0, length);
    const hash = createHash('sha256').update(rows(text).join('\n')).digest('hex');
    assert.equal(hash.slice(0, 16), digest);
  });
}

test('letters beyond Latin are bytes of UTF-8', () => {
  assert.equal(rows('я'.repeat(7)).length, 21);
  assert.equal(rows('я'.repeat(8)).length, 25);
});

test('what does not fit is refused', () => {
  assert.throws(() => encode('x'.repeat(214)), RangeError);
});
