/** Recordings: what is one. */

import { DataError } from '../errors.js';

export const MAX_SAMPLES = 100_000_000;

/** Samples in [-1, 1] of a recording: floats as they are, 16-bit ones divided by 32768. */
export function checked(raw) {
  const isFloat = raw instanceof Float32Array || raw instanceof Float64Array;
  const fits = (isFloat || raw instanceof Int16Array) && raw.length > 0 && raw.length <= MAX_SAMPLES;
  if (!fits || !raw.every(Number.isFinite)) {
    throw new DataError('got something else than a recording, or not all of it is finite', {
      where: 'sound',
      rule: `samples of one channel: Float32Array in [-1, 1], or Int16Array; 1 to ${MAX_SAMPLES} of them`,
      wayOut: 'average the channels; a prepared tensor goes in by name: predict({input: tensor})',
    });
  }
  return raw instanceof Int16Array ? Float64Array.from(raw, (value) => value / 32768) : raw;
}
