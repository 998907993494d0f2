/** From sound to the samples themselves, for networks that listen to the waveform. */

import { exactly, Fields } from '../fields.js';
import { checked, MAX_SAMPLES } from './sound.js';

/** The waveform preprocessing of a bundle's manifest, checked. */
export function readWaveform(data, where) {
  const row = exactly(data, ['kind', 'sample_rate', 'samples', 'normalize', 'layout'], where), fields = new Fields(row, where);
  fields.whole('sample_rate', 1, 1_000_000);
  fields.whole('samples', 1, MAX_SAMPLES, true);
  if (row.normalize !== null) fields.choice('normalize', ['recording', 'input']);
  fields.choice('layout', ['T', '1T']);
  return row;
}

/**
 * The model's input float32 of one recording, in the shape that `layout` says; in float64, rounded at the end.
 *
 * @param {Float32Array | Float64Array | Int16Array} raw samples of one channel: in [-1, 1], or int16
 */
export function prepareWaveform(raw, how) {
  const given = checked(raw), length = how.samples ?? given.length, samples = new Float64Array(length);
  const kept = samples.subarray(0, Math.min(length, given.length));
  kept.set(given.subarray(0, kept.length));
  if (how.normalize === 'recording') normal(kept);
  if (how.normalize === 'input') normal(samples);
  const shape = how.layout === '1T' ? [1, 1, length] : [1, length];
  return { dtype: 'float32', shape, data: Float32Array.from(samples) };
}

/** Mean 0 and variance 1, in place. */
function normal(samples) {
  const mean = samples.reduce((sum, x) => sum + x, 0) / samples.length;
  const variance = samples.reduce((sum, x) => sum + (x - mean) ** 2, 0) / samples.length;
  const spread = Math.sqrt(variance + 1e-7);
  samples.forEach((x, i) => { samples[i] = (x - mean) / spread; });
}
