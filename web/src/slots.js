/**
 * Slots: where browsers have no locks (plain HTTP), each tab has its own session and storage.
 *
 * A tab keeps its slot over a reload. When it closes, the next new tab takes the slot over, so that
 * the user stays logged in. A duplicated tab detects that its slot is taken.
 */

const CHANNEL = 'vestnik-slots';
const KEY = 'vestnik.slots';
/** Time limit for the answer of the tab that has the slot. */
const ANSWER_MS = 150;
const SLOTS_MAX = 20;

/** @returns {string[]} free slots */
function read() {
  const list = JSON.parse(localStorage.getItem(KEY) ?? '[]');
  return Array.isArray(list) ? list.filter((slot) => typeof slot === 'string') : [];
}

/** @param {string[]} slots */
const write = (slots) => localStorage.setItem(KEY, JSON.stringify(slots.slice(-SLOTS_MAX)));

/**
 * @param {BroadcastChannel} channel
 * @param {string} slot
 * @returns {Promise<boolean>} whether another tab has it
 */
function isTaken(channel, slot) {
  return new Promise((resolve) => {
    channel.onmessage = ({ data }) => data.taken === slot && resolve(true);
    channel.postMessage({ wanted: slot });
    setTimeout(() => resolve(false), ANSWER_MS);
  });
}

/** @returns {Promise<string>} the name of the databases of this tab */
export async function claim() {
  try {
    const channel = new BroadcastChannel(CHANNEL);
    let slot = sessionStorage.getItem(KEY) ?? read().at(-1);
    while (slot && await isTaken(channel, slot)) {
      write(read().filter((each) => each !== slot));
      slot = read().at(-1);
    }
    slot ??= crypto.getRandomValues(new Uint32Array(2)).join('-');
    hold(channel, slot);
    return `vestnik-${slot}`;
  } catch {
    // No storage at all: nothing outlives this tab.
    return `vestnik-${Math.random()}`;
  }
}

/**
 * @param {BroadcastChannel} channel
 * @param {string} slot
 */
function hold(channel, slot) {
  const take = () => {
    sessionStorage.setItem(KEY, slot);
    write(read().filter((each) => each !== slot));
  };
  take();
  channel.onmessage = ({ data }) => data.wanted === slot && channel.postMessage({ taken: slot });
  addEventListener('pagehide', () => write([...read(), slot]));
  addEventListener('pageshow', (event) => {
    if (!(/** @type {PageTransitionEvent} */ (event).persisted)) return;
    // While this page was in the back-forward cache, another tab may have taken the slot.
    if (!read().includes(slot)) {
      sessionStorage.removeItem(KEY);
      location.reload();
    } else take();
  });
}
