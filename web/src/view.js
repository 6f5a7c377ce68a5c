/**
 * The view layer: signals, an element builder, keyed lists and dialogs.
 *
 * Three parts, each usable without the next:
 * 1. Signals: values that know who reads them. No DOM here: node runs this part in unit tests.
 * 2. Elements: `h('p', {class: 'x'}, child…)`. A function in place of a value or a child is
 *    evaluated again whenever a signal that it read changes. Text always becomes a text node.
 * 3. Dialogs: a modal `<dialog>` whose promise settles when it closes.
 *
 * Everything created while an effect runs belongs to the effect, and is disposed of before it runs
 * again. `root` creates such an owner without an effect, e.g. for one row of a list.
 */

/**
 * @template T
 * @typedef {{value: T, peek(): T}} Signal A value that notifies those who read `value`.
 */
/**
 * @template T
 * @typedef {{readonly value: T, peek(): T}} ReadonlySignal A derived value.
 */

// --- 1. Signals ---------------------------------------------------------------------------------

const CLEAN = 0;
/** A source may have changed: check the sources before running. */
const CHECK = 1;
const DIRTY = 2;
/** Effects that keep triggering each other are stopped after a number of runs in one flush. */
const RUNS_PER_FLUSH_MAX = 100_000;

/** @type {Node_ | null} The computation whose reads are recorded. */
let reader = null;
/** @type {Node_ | null} The computation or root that owns what is made now. */
let owner = null;
let batchDepth = 0;
/** @type {Node_[]} Effects that wait for the end of the batch. */
let queue = [];
let isFlushing = false;

/** A node of the graph: a signal (without `fn`), a derived value, an effect or a root. */
class Node_ {
  /**
   * @param {any} value
   * @param {(() => any) | null} fn
   * @param {boolean} isEffect
   */
  constructor(value, fn, isEffect) {
    this.held = value;
    this.fn = fn;
    this.isEffect = isEffect;
    this.state = fn ? DIRTY : CLEAN;
    /** @type {Set<Node_>} */
    this.readers = new Set();
    /** @type {Set<Node_>} */
    this.sources = new Set();
    /** @type {(() => void)[]} Run before the next run, and at the end. */
    this.cleanups = [];
  }

  get value() {
    const value = this.peek();
    if (reader) {
      this.readers.add(reader);
      reader.sources.add(this);
    }
    return value;
  }

  set value(next) {
    if (this.fn) throw new Error('a derived value cannot be set');
    if (Object.is(this.held, next)) return;
    this.held = next;
    for (const node of [...this.readers]) node.mark(DIRTY);
    if (batchDepth === 0) flush();
  }

  peek() {
    if (this.fn && !this.isEffect) this.refresh();
    return this.held;
  }

  /** @param {number} state */
  mark(state) {
    if (this.state >= state) return;
    const wasClean = this.state === CLEAN;
    this.state = state;
    if (!wasClean) return;
    if (this.isEffect) queue.push(this);
    else for (const node of this.readers) node.mark(CHECK);
  }

  /** Runs the function if a source really changed. */
  refresh() {
    if (this.state === CHECK) {
      for (const source of this.sources) {
        if (source.fn) source.refresh();
        if (/** @type {number} */ (this.state) === DIRTY) break;
      }
    }
    if (this.state === DIRTY) this.run();
    // An effect that has set its own source is marked and queued again, and stays so.
    else if (this.state === CHECK) this.state = CLEAN;
  }

  run() {
    this.reset();
    const [readerBefore, ownerBefore] = [reader, owner];
    reader = owner = this;
    // Mark it clean before it runs: a write to its own source then marks it again.
    this.state = CLEAN;
    try {
      const next = /** @type {() => any} */ (this.fn)();
      if (this.isEffect) {
        if (typeof next === 'function') this.cleanups.push(next);
      } else if (!Object.is(this.held, next)) {
        this.held = next;
        for (const node of this.readers) node.state = DIRTY;
      }
    } finally {
      reader = readerBefore;
      owner = ownerBefore;
    }
  }

  /** Disposes of everything the last run created, and forgets its sources. */
  reset() {
    const cleanups = this.cleanups;
    this.cleanups = [];
    for (const cleanup of cleanups) cleanup();
    for (const source of this.sources) source.readers.delete(this);
    this.sources.clear();
  }

  dispose() {
    this.reset();
    this.state = CLEAN;
    this.fn = () => this.held;
  }
}

function flush() {
  if (isFlushing) return;
  isFlushing = true;
  /** @type {unknown[]} */
  const errors = [];
  try {
    for (let runs = 0; queue.length > 0; runs += queue.length) {
      if (runs > RUNS_PER_FLUSH_MAX) throw new Error('effects trigger each other without end');
      const batch_ = queue;
      queue = [];
      for (const node of batch_) {
        try {
          node.state === CLEAN || node.refresh();
        } catch (error) {
          errors.push(error);
        }
      }
    }
  } finally {
    queue = [];
    isFlushing = false;
  }
  // A failing effect must not prevent the others from running.
  if (errors.length > 0) throw errors[0];
}

/**
 * Makes a value that notifies its readers.
 * @template T
 * @param {T} value
 * @returns {Signal<T>}
 */
export function signal(value) {
  return new Node_(value, null, false);
}

/**
 * Makes a value that is derived from others, evaluated when it is read.
 * @template T
 * @param {() => T} fn
 * @returns {ReadonlySignal<T>}
 */
export function computed(fn) {
  const node = new Node_(undefined, fn, false);
  owner?.cleanups.push(() => node.dispose());
  return node;
}

/**
 * Runs `fn` now and whenever a signal that it read has changed. A function that it returns runs
 * before the next run.
 * @param {() => void | (() => void)} fn
 * @returns {() => void} ends it
 */
export function effect(fn) {
  const node = new Node_(undefined, fn, true);
  const dispose = () => node.dispose();
  owner?.cleanups.push(dispose);
  batch(() => node.refresh());
  return dispose;
}

/**
 * Runs `fn` with its own owner, without recording what it reads.
 * @template T
 * @param {(dispose: () => void) => T} fn
 * @returns {T}
 */
export function root(fn) {
  const node = new Node_(undefined, null, true);
  const [readerBefore, ownerBefore] = [reader, owner];
  reader = null;
  owner = node;
  try {
    return fn(() => node.dispose());
  } finally {
    reader = readerBefore;
    owner = ownerBefore;
  }
}

/**
 * Runs `fn` when the running effect ends or runs again.
 * @param {() => void} fn
 */
export function onCleanup(fn) {
  owner?.cleanups.push(fn);
}

/**
 * Runs `fn`; readers of what it sets are notified once, at the end.
 * @template T
 * @param {() => T} fn
 * @returns {T}
 */
export function batch(fn) {
  batchDepth += 1;
  try {
    return fn();
  } finally {
    batchDepth -= 1;
    if (batchDepth === 0) flush();
  }
}

/**
 * Runs `fn` without recording what it reads.
 * @template T
 * @param {() => T} fn
 * @returns {T}
 */
export function untracked(fn) {
  const before = reader;
  reader = null;
  try {
    return fn();
  } finally {
    reader = before;
  }
}

// --- 2. Elements --------------------------------------------------------------------------------

/**
 * @typedef {Node | string | number | null | undefined | false | any[] | (() => any)} Child
 * What an element can hold: nodes, text, lists of both, and functions that give them.
 */

const SVG = 'http://www.w3.org/2000/svg';
const SVG_TAGS = new Set(['svg', 'path', 'circle', 'rect', 'line', 'g', 'use', 'polyline']);

/**
 * Makes an element.
 *
 * Keys of `props`: `on…` adds a listener; `style` takes an object of CSS properties (an attribute
 * would be refused by the content security policy); `ref` gets the element; a key that is a
 * property of the element and not made for text (`value`, `checked`, `disabled` …) is set as such;
 * all others are attributes (null and false remove one, true gives an empty one). Any value but a
 * listener's may be a function: it is evaluated again when what it reads changes. A button sends
 * no form unless its `type` says so.
 * @param {string} tag
 * @param {Record<string, any> | null} [props]
 * @param {...Child} children
 * @returns {any} the element; its type depends on the tag
 */
export function h(tag, props, ...children) {
  const element = SVG_TAGS.has(tag)
    ? document.createElementNS(SVG, tag)
    : document.createElement(tag);
  if (tag === 'button') element.setAttribute('type', 'button');
  for (const [key, value] of Object.entries(props ?? {})) {
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else if (key === 'ref') value(element);
    else if (typeof value === 'function') effect(() => setProp(element, key, value()));
    else setProp(element, key, value);
  }
  append(element, children);
  return element;
}

const PROPERTIES = new Set([
  'value', 'checked', 'disabled', 'selected', 'hidden', 'readOnly', 'indeterminate', 'srcObject',
]);

/**
 * @param {Element} element
 * @param {string} key
 * @param {any} value
 */
function setProp(element, key, value) {
  if (key === 'style') {
    for (const [name, text] of Object.entries(value)) {
      /** @type {HTMLElement} */ (element).style.setProperty(name, text);
    }
  } else if (PROPERTIES.has(key)) {
    // Setting an equal value would move the caret of a text box.
    if (/** @type {any} */ (element)[key] !== value) /** @type {any} */ (element)[key] = value;
  } else if (value === null || value === undefined || value === false) {
    element.removeAttribute(key);
  } else {
    element.setAttribute(key, value === true ? '' : String(value));
  }
}

/**
 * Appends children: nodes, text, arrays of both, and functions that give them.
 * @param {Node} parent
 * @param {Child} child
 */
export function append(parent, child) {
  if (typeof child === 'function') appendDynamic(parent, child);
  else if (Array.isArray(child)) for (const each_ of child) append(parent, each_);
  else if (child instanceof Node) parent.appendChild(child);
  else if (child !== null && child !== undefined && child !== false) {
    parent.appendChild(document.createTextNode(String(child)));
  }
}

/**
 * @param {Node} parent
 * @param {() => Child} fn
 */
function appendDynamic(parent, fn) {
  // Two empty text nodes mark the range of the dynamic child.
  const [start, end] = marks(parent);
  effect(() => {
    const child = fn();
    const text = typeof child === 'string' || typeof child === 'number' ? String(child) : null;
    const shown = start.nextSibling;
    if (text !== null && shown instanceof Text && shown !== end && shown.nextSibling === end) {
      if (shown.data !== text) shown.data = text;
      return;
    }
    const fragment = document.createDocumentFragment();
    append(fragment, child);
    clear(start, end);
    end.parentNode?.insertBefore(fragment, end);
  });
}

/** Puts two empty texts into `parent`. @param {Node} parent */
function marks(parent) {
  return [0, 1].map(() => parent.appendChild(document.createTextNode('')));
}

/**
 * Removes what is between two nodes.
 * @param {Node} start
 * @param {Node} end
 */
function clear(start, end) {
  while (start.nextSibling && start.nextSibling !== end) {
    start.parentNode?.removeChild(start.nextSibling);
  }
}

/**
 * A child that is rendered again only when its key changes, whatever else the key's function reads.
 * @template K
 * @param {() => K} key
 * @param {(key: K) => Child} render
 * @returns {() => Child}
 */
export function match(key, render) {
  const current = computed(key);
  return () => {
    const value = current.value;
    return untracked(() => render(value));
  };
}

/**
 * A child that is shown while `condition` is truthy, and another one while it is not.
 * @param {() => unknown} condition
 * @param {() => Child} render
 * @param {() => Child} [renderElse]
 * @returns {() => Child}
 */
export function when(condition, render, renderElse) {
  return match(() => Boolean(condition()), (is) => (is ? render() : renderElse?.()));
}

/**
 * Fills `parent` with one node per item, and reuses the nodes of items whose keys stay. Nodes move
 * only where the order changed, so that focus and scroll positions survive.
 * @template T
 * @param {Element} parent whose children belong to the list alone
 * @param {() => readonly T[]} items
 * @param {(item: T) => unknown} key unique among the items
 * @param {(item: ReadonlySignal<T>) => Element} render called once for each key
 */
export function each(parent, items, key, render) {
  /** @type {Map<unknown, {element: Element, item: Signal<T>, dispose: () => void}>} */
  let rows = new Map();
  effect(() => {
    const list = items();
    untracked(() => {
      const next = new Map();
      for (const item of list) {
        const id = key(item);
        if (next.has(id)) continue;
        const row = rows.get(id) ?? makeRow(item, render);
        next.set(id, row);
        row.item.value = item;
      }
      for (const [id, row] of rows) {
        if (next.has(id)) continue;
        row.dispose();
        row.element.remove();
      }
      rows = next;
      place(parent, [...next.values()].map((row) => row.element));
    });
  });
  onCleanup(() => rows.forEach((row) => row.dispose()));
}

/**
 * @template T
 * @param {T} value
 * @param {(item: ReadonlySignal<T>) => Element} render
 */
function makeRow(value, render) {
  return root((dispose) => {
    const item = signal(value);
    return { item, dispose, element: render(item) };
  });
}

/**
 * Puts `elements` into `parent` in this order, with few moves.
 * @param {Element} parent
 * @param {Element[]} elements
 */
function place(parent, elements) {
  let at = parent.firstElementChild;
  for (const [index, element] of elements.entries()) {
    if (at === element) {
      at = at.nextElementSibling;
    } else if (at && at.nextElementSibling === element && elements[index + 1] !== at) {
      // One element was moved away from here: move it, instead of all after it.
      const moved = at;
      at = element.nextElementSibling;
      parent.append(moved);
    } else {
      parent.insertBefore(element, at);
    }
  }
}

/**
 * Shows `child` in `parent` until the function that it gives is called.
 * @param {Element} parent
 * @param {() => Child} child
 * @returns {() => void}
 */
export function mount(parent, child) {
  return root((dispose) => {
    const fragment = document.createDocumentFragment();
    const [start, end] = marks(fragment);
    append(fragment, child());
    fragment.append(end);
    parent.append(fragment);
    return () => {
      dispose();
      clear(start, end);
      for (const mark of [start, end]) mark.parentNode?.removeChild(mark);
    };
  });
}

// --- 3. Dialogs ---------------------------------------------------------------------------------

let dialogCount = 0;

/**
 * Opens a modal dialog. The browser keeps the focus inside and gives it back; Escape and a press
 * on the backdrop close it.
 * @template R
 * @param {{title: string, class?: string, role?: 'dialog' | 'alertdialog', hideTitle?: boolean,
 *   header?: Child}} options
 * @param {(close: (result?: R) => void) => Child} render
 * @returns {Promise<R | undefined>} what `close` got; undefined when it was dismissed
 */
export function openDialog(options, render) {
  const opener = document.activeElement;
  return new Promise((resolve) => {
    root((dispose) => {
      /** @type {R | undefined} */
      let result;
      const id = `dialog-${(dialogCount += 1)}`;
      /** @type {HTMLDialogElement} */
      const dialog = h('dialog', {
        class: options.class,
        role: options.role ?? 'dialog',
        'aria-labelledby': id,
        onclose: () => {
          closed();
          dispose();
          dialog.remove();
          if (opener instanceof HTMLElement && opener.isConnected) {
            // Chromium restores the focus while the page is inert: a text box then looks focused
            // but accepts no input.
            opener.blur();
            opener.focus();
          }
          resolve(result);
        },
        onpointerdown: (/** @type {PointerEvent} */ event) => {
          if (event.target === dialog) dialog.close();
        },
      });
      const closed = addLayer(() => dialog.close());
      const close = (/** @type {R | undefined} */ value) => {
        result = value;
        dialog.close();
      };
      append(dialog, h('div', { class: 'dialog-body' }, [
        h('header', { class: options.hideTitle ? 'sr-only' : 'dialog-head' },
          h('h2', { id }, options.title), options.header),
        render(close),
      ]));
      document.body.append(dialog);
      dialog.showModal();
    });
  });
}

// --- 4. Layers ----------------------------------------------------------------------------------

/** What closes the dialogs and menus that are open, the newest last. @type {(() => void)[]} */
const layers = [];

/** How many layers the present entry of the history has. */
export const layerCount = () => history.state?.layers ?? 0;

/**
 * Notes that a dialog or a menu is open.
 * @param {() => void} close
 * @returns {() => void} to be called when it has closed
 */
export function addLayer(close) {
  layers.push(close);
  settle();
  return () => {
    const at = layers.indexOf(close);
    if (at >= 0) layers.splice(at, 1);
    settle();
  };
}

/** Closes the layers above the lowest `count`. */
export function closeLayers(count = 0) {
  for (const close of layers.splice(count).reverse()) close();
}

let settled = Promise.resolve();
/** A step of the history is done by then, or there is none to go. */
const STEP_LIMIT_MS = 500;

/**
 * Brings the history in line with the layers. On touch devices each has an entry, which Back takes
 * away; when a layer closes otherwise, its entry goes before anything else enters the history.
 * @returns {Promise<void>}
 */
export function settle() {
  settled = settled.then(() => {
    const left = layerCount() - layers.length;
    if (left <= 0) {
      if (matchMedia('(pointer: coarse)').matches) {
        for (let n = layerCount() + 1; n <= layers.length; n += 1) {
          history.pushState({ ...history.state, layers: n }, '');
        }
      }
      return undefined;
    }
    return new Promise((resolve) => {
      const end = (/** @type {Event | undefined} */ event) => {
        event?.stopImmediatePropagation();
        removeEventListener('popstate', end, true);
        resolve();
      };
      addEventListener('popstate', end, true);
      setTimeout(end, STEP_LIMIT_MS);
      history.go(-left);
    });
  });
  return settled;
}
