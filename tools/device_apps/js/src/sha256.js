/** SHA-256 as 64 hexadecimal digits. */

/**
 * @param {Uint8Array} data
 * @returns {Promise<string>}
 */
export async function sha256(data) {
  // Browsers have WebCrypto on https and on localhost only; a page from another machine in the house has not.
  const digest = globalThis.crypto?.subtle ? new Uint8Array(await crypto.subtle.digest('SHA-256', data)) : slowly(data);
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** FIPS 180-4, section 6.2, for where there is no WebCrypto.
 * @param {Uint8Array} data */
export function slowly(data) {
  const padded = new Uint8Array(Math.ceil((data.length + 9) / 64) * 64);
  padded.set(data);
  padded[data.length] = 0x80;
  const view = new DataView(padded.buffer);
  view.setBigUint64(padded.length - 8, BigInt(data.length) * 8n);
  const state = Uint32Array.from(FIRST);
  const words = new Uint32Array(64);
  for (let block = 0; block < padded.length; block += 64) {
    for (let i = 0; i < 16; i += 1) words[i] = view.getUint32(block + 4 * i);
    for (let i = 16; i < 64; i += 1) {
      const a = words[i - 15], b = words[i - 2];
      const small = turn(a, 7) ^ turn(a, 18) ^ (a >>> 3), large = turn(b, 17) ^ turn(b, 19) ^ (b >>> 10);
      words[i] = words[i - 16] + small + words[i - 7] + large;
    }
    let [a, b, c, d, e, f, g, h] = state;
    for (let i = 0; i < 64; i += 1) {
      const one = (h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) + ROUNDS[i] + words[i]) | 0;
      const two = ((turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      [h, g, f, e, d, c, b, a] = [g, f, e, (d + one) | 0, c, b, a, (one + two) | 0];
    }
    [a, b, c, d, e, f, g, h].forEach((value, i) => { state[i] += value; });
  }
  const digest = new DataView(new ArrayBuffer(32));
  state.forEach((word, i) => digest.setUint32(4 * i, word));
  return new Uint8Array(digest.buffer);
}

function turn(word, bits) {
  return (word >>> bits) | (word << (32 - bits));
}

// The first 32 bits of the fractions of the primes' square and cube roots, in whole numbers: doubles have too few bits.
const PRIMES = Array.from({ length: 310 }, (_, n) => n + 2).filter((n) => {
  for (let i = 2; i * i <= n; i += 1) if (n % i === 0) return false;
  return true;
});
const ROUNDS = PRIMES.slice(0, 64).map((prime) => Number(BigInt.asUintN(32, root(BigInt(prime) << 96n, 3n))));
const FIRST = PRIMES.slice(0, 8).map((prime) => Number(BigInt.asUintN(32, root(BigInt(prime) << 64n, 2n))));

/** The whole part of a root, bit by bit. */
function root(value, degree) {
  let found = 0n;
  for (let bit = 1n << 36n; bit; bit >>= 1n) if ((found | bit) ** degree <= value) found |= bit;
  return found;
}
