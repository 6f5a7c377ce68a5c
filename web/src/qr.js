/**
 * QR code encoder (ISO/IEC 18004): byte mode, level M, versions 1 to 10 (up to 213 bytes).
 */

/** For each version: correction bytes of a block, then the data bytes of each block. */
const BLOCKS = [
  [10, [16]], [16, [28]], [26, [44]], [18, [32, 32]], [24, [43, 43]], [16, [27, 27, 27, 27]],
  [18, [31, 31, 31, 31]], [22, [38, 38, 39, 39]], [22, [36, 36, 36, 37, 37]],
  [26, [43, 43, 43, 43, 44]],
].map(([correction, data]) => ({
  correction: /** @type {number} */ (correction), data: /** @type {number[]} */ (data),
}));

/** Where alignment patterns are centred, besides 6, for each version. */
const ALIGNMENT = [[], [18], [22], [26], [30], [34], [22, 38], [24, 42], [26, 46], [28, 50]];

const MODE_BYTES = 0b0100;
const LEVEL_M = 0b00;

/** @type {((x: number, y: number) => boolean)[]} */
const MASKS = [
  (x, y) => (x + y) % 2 === 0,
  (x, y) => y % 2 === 0,
  (x) => x % 3 === 0,
  (x, y) => (x + y) % 3 === 0,
  (x, y) => ((x / 3 | 0) + (y / 2 | 0)) % 2 === 0,
  (x, y) => ((x * y) % 2) + ((x * y) % 3) === 0,
  (x, y) => (((x * y) % 2) + ((x * y) % 3)) % 2 === 0,
  (x, y) => (((x + y) % 2) + ((x * y) % 3)) % 2 === 0,
];

/**
 * @param {string} text
 * @returns {boolean[][]} rows; true is dark. No quiet zone around it
 */
export function encode(text) {
  const bytes = new TextEncoder().encode(text);
  const version = 1 + BLOCKS.findIndex(({ data }, index) =>
    bytes.length * 8 + 4 + countBits(index + 1) <= 8 * sum(data));
  if (version === 0) throw new RangeError('too long for a QR code');
  const codewords = correct(toData(bytes, version), version);
  const candidates = MASKS.map((_, mask) => draw(version, codewords, mask));
  const penalties = candidates.map(penalty);
  return candidates[penalties.indexOf(Math.min(...penalties))];
}

/** @param {number} version */
const countBits = (version) => (version < 10 ? 8 : 16);
/** @param {number[]} numbers */
const sum = (numbers) => numbers.reduce((total, each) => total + each, 0);

/**
 * @param {Uint8Array} bytes
 * @param {number} version
 * @returns {number[]} the data bytes, filled up
 */
function toData(bytes, version) {
  let bits = MODE_BYTES.toString(2).padStart(4, '0') + bytes.length.toString(2).padStart(countBits(version), '0');
  for (const byte of bytes) bits += byte.toString(2).padStart(8, '0');
  const capacity = sum(BLOCKS[version - 1].data);
  bits = bits.padEnd(Math.min(bits.length + 4, capacity * 8), '0');
  bits = bits.padEnd(Math.ceil(bits.length / 8) * 8, '0');
  const data = (bits.match(/.{8}/g) ?? []).map((byte) => parseInt(byte, 2));
  for (let pad = 0xec; data.length < capacity; pad ^= 0xec ^ 0x11) data.push(pad);
  return data;
}

// --- Error correction: Reed-Solomon over GF(256) ---

/** @type {number[]} */
const EXP = [];
/** @type {number[]} */
const LOG = [];
for (let power = 0, value = 1; power < 255; power += 1) {
  EXP[power] = value;
  LOG[value] = power;
  value = (value << 1) ^ (value & 0x80 ? 0x11d : 0);
}

/**
 * @param {number} a
 * @param {number} b
 */
const multiply = (a, b) => (a === 0 || b === 0 ? 0 : EXP[(LOG[a] + LOG[b]) % 255]);

/**
 * @param {number[]} data
 * @param {number} count
 * @returns {number[]} the correction bytes
 */
function remainder(data, count) {
  let divisor = [1];
  for (let power = 0; power < count; power += 1) {
    divisor = [...divisor, 0].map((factor, index) => factor ^ multiply(divisor[index - 1] ?? 0, EXP[power]));
  }
  const rest = [...data, ...new Array(count).fill(0)];
  for (let at = 0; at < data.length; at += 1) {
    const factor = rest[at];
    divisor.forEach((each, index) => { rest[at + index] ^= multiply(each, factor); });
  }
  return rest.slice(data.length);
}

/**
 * @param {number[]} data
 * @param {number} version
 * @returns {number[]} blocks and their correction, interleaved
 */
function correct(data, version) {
  const { correction, data: lengths } = BLOCKS[version - 1];
  let at = 0;
  const blocks = lengths.map((length) => data.slice(at, at += length));
  return [...interleave(blocks), ...interleave(blocks.map((block) => remainder(block, correction)))];
}

/** @param {number[][]} blocks */
function interleave(blocks) {
  const longest = Math.max(...blocks.map(({ length }) => length));
  return Array.from({ length: longest }, (_, at) => blocks.map((block) => block[at]))
    .flat().filter((byte) => byte !== undefined);
}

// --- The square ---

/**
 * @param {number} version
 * @param {number[]} codewords
 * @param {number} mask
 * @returns {boolean[][]}
 */
function draw(version, codewords, mask) {
  const size = 17 + 4 * version;
  /** @type {boolean[][]} undefined: free for data */
  const rows = Array.from({ length: size }, () => new Array(size));
  const set = (/** @type {number} */ x, /** @type {number} */ y, /** @type {boolean} */ isDark) => {
    if (x >= 0 && y >= 0 && x < size && y < size) rows[y][x] = isDark;
  };
  drawPatterns(version, size, rows, set);
  drawFormat(size, mask, set);
  if (version >= 7) drawVersion(version, size, set);
  drawData(codewords, size, rows, mask);
  return rows;
}

/** @typedef {(x: number, y: number, isDark: boolean) => void} Set */

/**
 * @param {number} version
 * @param {number} size
 * @param {boolean[][]} rows
 * @param {Set} set
 */
function drawPatterns(version, size, rows, set) {
  for (const [left, top] of [[0, 0], [size - 7, 0], [0, size - 7]]) {
    for (let y = -1; y <= 7; y += 1) {
      for (let x = -1; x <= 7; x += 1) {
        const ring = Math.max(Math.abs(x - 3), Math.abs(y - 3));
        set(left + x, top + y, ring !== 2 && ring !== 4);
      }
    }
  }
  for (let at = 8; at < size - 8; at += 1) {
    set(at, 6, at % 2 === 0);
    set(6, at, at % 2 === 0);
  }
  const centres = version === 1 ? [] : [6, ...ALIGNMENT[version - 1]];
  for (const y of centres) {
    for (const x of centres) {
      // Not over the finders; those on the timing lines agree with them.
      if (rows[y][x] !== undefined && x !== 6 && y !== 6) continue;
      if ((x < 9 && y < 9) || (x > size - 10 && y < 9) || (x < 9 && y > size - 10)) continue;
      for (let dy = -2; dy <= 2; dy += 1) {
        for (let dx = -2; dx <= 2; dx += 1) set(x + dx, y + dy, Math.max(Math.abs(dx), Math.abs(dy)) !== 1);
      }
    }
  }
  set(8, size - 8, true);
}

/**
 * @param {number} value
 * @param {number} bits that are appended
 * @param {number} divisor
 * @returns {number} the value and its check bits
 */
function withCheck(value, bits, divisor) {
  let rest = value << bits;
  for (let bit = 31 - Math.clz32(rest); bit >= bits; bit = 31 - Math.clz32(rest)) rest ^= divisor << (bit - bits);
  return (value << bits) | rest;
}

/**
 * @param {number} size
 * @param {number} mask
 * @param {Set} set
 */
function drawFormat(size, mask, set) {
  const bits = withCheck((LEVEL_M << 3) | mask, 10, 0x537) ^ 0x5412;
  for (let index = 0; index < 15; index += 1) {
    const isDark = ((bits >> index) & 1) === 1;
    const near = index < 6 ? index : index < 8 ? index + 1 : size - 15 + index;
    set(8, near, isDark);
    const far = index < 8 ? size - 1 - index : index === 8 ? 7 : 14 - index;
    set(far, 8, isDark);
  }
}

/**
 * @param {number} version
 * @param {number} size
 * @param {Set} set
 */
function drawVersion(version, size, set) {
  const bits = withCheck(version, 12, 0x1f25);
  for (let index = 0; index < 18; index += 1) {
    const [a, b] = [size - 11 + (index % 3), Math.floor(index / 3)];
    set(a, b, ((bits >> index) & 1) === 1);
    set(b, a, ((bits >> index) & 1) === 1);
  }
}

/**
 * Up and down in columns of two, from the right; column 6 is the timing line's.
 * @param {number[]} codewords
 * @param {number} size
 * @param {boolean[][]} rows
 * @param {number} mask
 */
function drawData(codewords, size, rows, mask) {
  let bit = 0;
  for (let right = size - 1, isUp = true; right > 0; right -= 2, isUp = !isUp) {
    if (right === 6) right -= 1;
    for (let step = 0; step < size; step += 1) {
      const y = isUp ? size - 1 - step : step;
      for (const x of [right, right - 1]) {
        if (rows[y][x] !== undefined) continue;
        const isSet = (((codewords[bit >> 3] ?? 0) >> (7 - (bit & 7))) & 1) === 1;
        rows[y][x] = isSet !== MASKS[mask](x, y);
        bit += 1;
      }
    }
  }
}

/**
 * The penalty of a mask: how hard the symbol is to read (section 7.8.3).
 * @param {boolean[][]} rows
 */
function penalty(rows) {
  const size = rows.length;
  const columns = rows.map((_, x) => rows.map((row) => row[x]));
  const lines = [...rows, ...columns].map((line) => line.map((isDark) => (isDark ? '1' : '0')).join(''));
  let total = 0;
  for (const line of lines) {
    for (const { length } of line.match(/0{5,}|1{5,}/g) ?? []) total += length - 2;
    total += 40 * (line.match(/(?=10111010000|00001011101)/g) ?? []).length;
  }
  for (let y = 1; y < size; y += 1) {
    for (let x = 1; x < size; x += 1) {
      const isDark = rows[y][x];
      if (rows[y - 1][x] === isDark && rows[y][x - 1] === isDark && rows[y - 1][x - 1] === isDark) total += 3;
    }
  }
  const dark = rows.flat().filter(Boolean).length;
  return total + 10 * Math.floor(Math.abs(dark * 20 - size * size * 10) / (size * size));
}
