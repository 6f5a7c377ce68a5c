import assert from 'node:assert/strict';
import test from 'node:test';

import { batch, computed, effect, onCleanup, root, signal, untracked } from '../../src/view.js';

test('an effect runs at once and after each change', () => {
  const count = signal(1);
  const seen = [];
  effect(() => void seen.push(count.value));
  count.value = 2;
  count.value = 2;
  count.value = 3;
  assert.deepEqual(seen, [1, 2, 3]);
});

test('an ended effect runs no more', () => {
  const count = signal(1);
  let runs = 0;
  const end = effect(() => void (count.value, (runs += 1)));
  end();
  count.value = 2;
  assert.equal(runs, 1);
});

test('a derived value is evaluated once for each change, and only when it is read', () => {
  const count = signal(1);
  let runs = 0;
  const double = computed(() => ((runs += 1), count.value * 2));
  assert.equal(runs, 0);
  assert.equal(double.value, 2);
  assert.equal(double.value, 2);
  assert.equal(runs, 1);
  count.value = 4;
  assert.equal(double.value, 8);
  assert.equal(runs, 2);
});

test('a diamond runs its effect once, with values that fit together', () => {
  const count = signal(1);
  const double = computed(() => count.value * 2);
  const triple = computed(() => count.value * 3);
  const seen = [];
  effect(() => void seen.push([count.value, double.value, triple.value]));
  count.value = 2;
  assert.deepEqual(seen, [[1, 2, 3], [2, 4, 6]]);
});

test('an effect sleeps when what it derives from comes out equal', () => {
  const count = signal(1);
  const isBig = computed(() => count.value > 10);
  let runs = 0;
  effect(() => void (isBig.value, (runs += 1)));
  count.value = 2;
  count.value = 3;
  assert.equal(runs, 1);
  count.value = 11;
  assert.equal(runs, 2);
});

test('a chain of derived values passes changes on', () => {
  const a = signal(1);
  const b = computed(() => a.value + 1);
  const c = computed(() => b.value + 1);
  const d = computed(() => c.value + 1);
  const seen = [];
  effect(() => void seen.push(d.value));
  a.value = 10;
  assert.deepEqual(seen, [4, 13]);
});

test('sources are forgotten when a run does not read them', () => {
  const isOn = signal(true);
  const text = signal('a');
  const seen = [];
  effect(() => void seen.push(isOn.value ? text.value : 'off'));
  isOn.value = false;
  text.value = 'b';
  assert.deepEqual(seen, ['a', 'off']);
});

test('a batch notifies once', () => {
  const a = signal(1);
  const b = signal(1);
  const seen = [];
  effect(() => void seen.push(a.value + b.value));
  batch(() => {
    a.value = 2;
    batch(() => (b.value = 2));
    a.value = 3;
  });
  assert.deepEqual(seen, [2, 5]);
});

test('what an effect sets reaches others and itself', () => {
  const a = signal(0);
  const seen = [];
  effect(() => {
    if (a.value < 3) a.value += 1;
  });
  effect(() => void seen.push(a.value));
  assert.deepEqual(seen, [3]);
});

test('effects that trigger each other without end are stopped', () => {
  const a = signal({});
  assert.throws(() => {
    effect(() => void (a.value = { last: a.value }));
  });
  // The graph still works afterwards.
  const b = signal(1);
  const seen = [];
  effect(() => void seen.push(b.value));
  b.value = 2;
  assert.deepEqual(seen, [1, 2]);
});

test('an effect that fails does not keep others from running', () => {
  const a = signal(0);
  const seen = [];
  effect(() => {
    if (a.value === 1) throw new Error('broken');
  });
  effect(() => void seen.push(a.value));
  assert.throws(() => (a.value = 1), /broken/);
  a.value = 2;
  assert.deepEqual(seen, [0, 1, 2]);
});

test('what an effect made is disposed of before it runs again', () => {
  const outer = signal(1);
  const inner = signal(1);
  let runs = 0;
  effect(() => {
    outer.value;
    effect(() => void (inner.value, (runs += 1)));
  });
  outer.value = 2;
  assert.equal(runs, 2);
  inner.value = 2;
  assert.equal(runs, 3);
});

test('cleanups run before the next run and at the end', () => {
  const a = signal(1);
  const log = [];
  const end = effect(() => {
    const value = a.value;
    log.push(`run ${value}`);
    onCleanup(() => log.push(`clean ${value}`));
  });
  a.value = 2;
  end();
  assert.deepEqual(log, ['run 1', 'clean 1', 'run 2', 'clean 2']);
});

test('untracked reads do not subscribe, nor do those of a root', () => {
  const a = signal(1);
  let runs = 0;
  effect(() => {
    runs += 1;
    untracked(() => a.value);
    root(() => a.value);
  });
  a.value = 2;
  assert.equal(runs, 1);
});

test('a root keeps what it made until it is disposed of', () => {
  const trigger = signal(1);
  const a = signal(1);
  const seen = [];
  let end = () => {};
  effect(() => {
    trigger.value;
    if (seen.length > 0) return;
    root((dispose) => {
      end = dispose;
      effect(() => void seen.push(a.value));
    });
  });
  trigger.value = 2;
  a.value = 2;
  end();
  a.value = 3;
  assert.deepEqual(seen, [1, 2]);
});

test('a derived value cannot be set', () => {
  const a = computed(() => 1);
  assert.throws(() => {
    /** @type {any} */ (a).value = 2;
  });
});
