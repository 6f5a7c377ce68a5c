import assert from 'node:assert/strict';
import test from 'node:test';

// The list needs a browser only when it is shown; its modules ask these when they are loaded.
globalThis.matchMedia ??= () => ({ matches: false, addEventListener() {} });
const { SLICE_MAX, follow, grow, lastSlice, reuse, rowsOf, sliceAround } = await import('../../src/timeline.js');

const MINUTE = 60_000_000;
const START = Date.UTC(2026, 4, 4, 12) * 1000;

/** @returns {any[]} messages with the ids from `from` to `to` */
function messages(from, to) {
  const list = [];
  for (let id = from; id <= to; id += 1) {
    list.push({ id, sender: 1, created: START + id * 10 * MINUTE });
  }
  return list;
}

test('a reader at the end follows what is new, and the slice stays bounded', () => {
  const before = messages(1, 100);
  let range = lastSlice(100, 0);
  assert.equal(range.end, 100);
  const after = messages(1, 1000);
  range = follow(range, before, after, true);
  assert.equal(range.end, 1000);
  assert.ok(range.end - range.start <= SLICE_MAX);
});

test('older messages move the slice with what it shows', () => {
  const range = follow({ start: 0, end: 50 }, messages(101, 200), messages(1, 200), false);
  assert.deepEqual(range, { start: 100, end: 150 });
});

test('new messages leave the slice of a reader where it is', () => {
  const range = follow({ start: 10, end: 60 }, messages(1, 100), messages(1, 140), false);
  assert.deepEqual(range, { start: 10, end: 60 });
});

test('a message that goes does not lose the others', () => {
  const before = messages(1, 100);
  const after = before.filter(({ id }) => id !== 60);
  assert.deepEqual(follow({ start: 10, end: 60 }, before, after, false), { start: 10, end: 60 });
  const first = before.filter(({ id }) => id !== 5);
  assert.equal(follow({ start: 10, end: 60 }, before, first, false).start, 9);
  const shown = before.filter(({ id }) => id !== 11);
  assert.deepEqual(follow({ start: 10, end: 60 }, before, shown, false), { start: 10, end: 59 });
});

test('other items altogether show the end of them', () => {
  const range = follow({ start: 0, end: 50 }, messages(1, 100), messages(1001, 1100), false);
  assert.equal(range.end, 100);
});

test('a slice grows at one end and shrinks at the other', () => {
  let range = { start: 500, end: 640 };
  for (let n = 0; n < 20; n += 1) {
    const next = grow(range, 1000, 'up');
    assert.ok(next.start < range.start);
    assert.ok(next.end - next.start <= SLICE_MAX);
    range = next;
  }
  assert.deepEqual(grow({ start: 0, end: 10 }, 1000, 'up'), { start: 0, end: 10 });
  assert.deepEqual(grow({ start: 950, end: 1000 }, 1000, 'down'), { start: 950, end: 1000 });
  const down = grow({ start: 0, end: SLICE_MAX }, 1000, 'down');
  assert.equal(down.end - down.start, SLICE_MAX);
});

test('a slice around a message holds it, at both ends of the items too', () => {
  for (const index of [0, 1, 500, 998, 999]) {
    const { start, end } = sliceAround(index, 1000);
    assert.ok(start <= index && index < end);
    assert.ok(start >= 0 && end <= 1000);
  }
});

test('rows: days, groups and the line of what is new', () => {
  const at = (sender, minutes, id) => ({ id, sender, created: START + minutes * MINUTE });
  const items = [at(1, 0, 1), at(1, 1, 2), at(2, 2, 3), at(2, 3, 4), at(2, 30, 5), at(2, 2000, 6)];
  const rows = rowsOf(items, { start: 0, end: 6 }, 4);
  assert.deepEqual(rows.map((row) => row.kind),
    ['day', 'message', 'message', 'message', 'unread', 'message', 'message', 'day', 'message']);
  const groups = rows.filter((row) => row.kind === 'message').map((row) => [row.isFirst, row.isLast]);
  assert.deepEqual(groups, [[true, false], [false, true], [true, true], [true, true], [true, true], [true, true]]);
  assert.equal(new Set(rows.map((row) => row.key)).size, rows.length);
});

test('rows that did not change stay the same objects', () => {
  const items = messages(1, 5);
  const before = rowsOf(items, { start: 0, end: 5 }, 0);
  const changed = items.map((one) => (one.id === 3 ? { ...one, text: 'x' } : one));
  const after = reuse(before, rowsOf(changed, { start: 0, end: 5 }, 0));
  const same = after.map((row, index) => row === before[index]);
  assert.deepEqual(same, [true, true, true, false, true, true]);
});

test('a slice that begins inside a day or a group has no line and no name', () => {
  const items = [1, 2, 3].map((id) => ({ id, sender: 1, created: START + id * MINUTE }));
  const [first] = rowsOf(items, { start: 1, end: 3 }, 0);
  assert.equal(first.kind, 'message');
  assert.equal(first.isFirst, false);
});
