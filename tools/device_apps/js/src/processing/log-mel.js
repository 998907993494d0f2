/** From sound to log-mel features, exactly as in training: in float64, rounded to float32 at the end. */

import { exactly, Fields } from '../fields.js';
import { checked, MAX_SAMPLES } from './sound.js';
import { power } from './spectrum.js';

const KEYS = [
  'kind', 'sample_rate', 'samples', 'window', 'fft', 'hop', 'centre', 'window_function', 'power', 'mels', 'low_hz',
  'high_hz', 'mel_scale', 'norm', 'log', 'floor', 'floor_by', 'mean', 'std', 'layout',
];
const MAX_FFT = 65_536;

/** The log-mel preprocessing of a bundle's manifest, checked. */
export function readLogMel(data, where) {
  const row = exactly(data, KEYS, where), fields = new Fields(row, where);
  fields.whole('sample_rate', 1, 1_000_000);
  fields.whole('window', 2, MAX_FFT);
  fields.whole('fft', row.window, MAX_FFT);
  fields.whole('hop', 1, MAX_FFT);
  fields.flag('centre');
  fields.whole('samples', shortest(row), MAX_SAMPLES, true);
  fields.choice('window_function', ['hann', 'hann_symmetric', 'hamming']);
  fields.whole('power', 1, 2);
  fields.whole('mels', 1, 1024);
  fields.number('high_hz', 1e-3, row.sample_rate / 2);
  fields.number('low_hz', 0, row.high_hz);
  if (row.low_hz >= row.high_hz) fields.refuse('low_hz', `less than high_hz, ${row.high_hz}`);
  fields.choice('mel_scale', ['htk', 'slaney']);
  if (row.norm !== null) fields.choice('norm', ['slaney']);
  fields.choice('log', ['natural', 'log10']);
  fields.number('floor', 1e-30);
  fields.choice('floor_by', ['add', 'max']);
  fields.number('mean');
  fields.number('std', 1e-30);
  fields.choice('layout', ['TF', 'FT', '1TF', '1FT']);
  return row;
}

/**
 * The model's input float32 of one recording, in the shape that `layout` says.
 *
 * @param {Float32Array | Float64Array | Int16Array} raw samples of one channel: in [-1, 1], or int16
 */
export function prepareLogMel(raw, how) {
  const sound = sized(checked(raw), how), length = how.centre ? how.fft : how.window;
  const frames = 1 + Math.floor((sound.length - length) / how.hop);
  const window = windowOf(how), filters = filtersOf(how), features = new Float32Array(frames * how.mels);
  const inTime = how.layout.endsWith('TF'), frame = new Float64Array(how.fft);
  for (let t = 0; t < frames; t += 1) {
    for (let i = 0; i < length; i += 1) frame[i] = sound[t * how.hop + i] * window[i];
    const spectrum = power(frame, how.power);
    for (let m = 0; m < how.mels; m += 1) {
      let energy = 0;
      for (let bin = filters[m].first; bin < filters[m].end; bin += 1) energy += spectrum[bin] * filters[m].weights[bin - filters[m].first];
      const floored = how.floor_by === 'add' ? energy + how.floor : Math.max(energy, how.floor);
      const value = how.log === 'natural' ? Math.log(floored) : Math.log10(floored);
      features[inTime ? t * how.mels + m : m * frames + t] = (value - how.mean) / how.std;
    }
  }
  const shape = inTime ? [1, frames, how.mels] : [1, how.mels, frames];
  return { dtype: 'float32', shape: how.layout.startsWith('1') ? [1, ...shape] : shape, data: features };
}

/** Samples of the shortest recording; a reflection needs one more than it reflects. */
function shortest({ window, fft, centre }) {
  return centre ? Math.max(window, Math.floor(fft / 2) + 1) : window;
}

/** Cut, or filled with silence; and with its reflection at both ends where frames are centred. */
function sized(samples, how) {
  const length = how.samples ?? Math.max(samples.length, shortest(how)), around = how.centre ? Math.floor(how.fft / 2) : 0;
  const made = new Float64Array(length + 2 * around);
  made.set(samples.subarray(0, length), around);
  for (let i = 1; i <= around; i += 1) {
    made[around - i] = made[around + i];
    made[around + length - 1 + i] = made[around + length - 1 - i];
  }
  return made;
}

/** The window's values, in the middle of `fft` samples where frames are centred. */
function windowOf(how) {
  const period = how.window_function === 'hann_symmetric' ? how.window - 1 : how.window;
  const constant = how.window_function === 'hamming' ? 0.54 : 0.5;
  const before = how.centre ? Math.floor((how.fft - how.window) / 2) : 0, made = new Float64Array(how.fft);
  for (let i = 0; i < how.window; i += 1) made[before + i] = constant - (1 - constant) * Math.cos((2 * Math.PI * i) / period);
  return made;
}

/** Triangular filters whose corners are equally spaced in mel: their first bin, the end, and the weights between. */
function filtersOf(how) {
  const low = mel(how.low_hz, how.mel_scale), high = mel(how.high_hz, how.mel_scale);
  const edges = Array.from({ length: how.mels + 2 }, (_, i) => hz(low + (i * (high - low)) / (how.mels + 1), how.mel_scale));
  return Array.from({ length: how.mels }, (_, m) => {
    const [left, peak, right] = edges.slice(m, m + 3), factor = how.norm === 'slaney' ? 2 / (right - left) : 1;
    const all = Float64Array.from({ length: Math.floor(how.fft / 2) + 1 }, (_, bin) => {
      const at = bin * (how.sample_rate / how.fft);
      return factor * Math.max(0, Math.min((at - left) / (peak - left), (right - at) / (right - peak)));
    });
    const first = all.findIndex((weight) => weight > 0), end = all.findLastIndex((weight) => weight > 0) + 1;
    return { first: Math.max(first, 0), end, weights: all.subarray(Math.max(first, 0), end) };
  });
}

function mel(frequency, scale) {
  if (scale === 'htk') return 2595 * Math.log10(1 + frequency / 700);
  return frequency < 1000 ? (frequency * 3) / 200 : 15 + (27 * Math.log(frequency / 1000)) / Math.log(6.4);
}

function hz(value, scale) {
  if (scale === 'htk') return 700 * (10 ** (value / 2595) - 1);
  return value < 15 ? (value * 200) / 3 : 1000 * Math.exp(((value - 15) * Math.log(6.4)) / 27);
}
