/** Golden vectors: inputs with the outputs that every device must reproduce, in `edgekit/golden.npz`. */

import { refuse } from './fields.js';
import { GOLDEN_FILE } from './manifest.js';
import { readNpy } from './npy.js';
import { accepts, describe } from './tensor.js';
import { readZip } from './zip.js';

/** Of 1000 samples with a few inputs and outputs each. */
const MAX_ARRAYS = 65_535;

/**
 * The golden samples, checked against the bundle's inputs and outputs.
 *
 * @param {Uint8Array} data
 * @param {import('./index.js').Manifest} manifest
 * @returns {import('./index.js').Golden[]}
 * @throws {BundleError} the file is no such .npz, or its arrays are not these tensors
 */
export function readGolden(data, manifest) {
  const arrays = new Map();
  for (const [name, bytes] of readZip(data, GOLDEN_FILE, MAX_ARRAYS)) {
    if (!name.endsWith('.npy')) refuse(`entry ${name}`, GOLDEN_FILE, '.npy entries');
    arrays.set(name.slice(0, -4), readNpy(bytes, `${GOLDEN_FILE}/${name}`));
  }
  const taken = (name) => {
    const value = arrays.get(name);
    arrays.delete(name);
    return value;
  };
  const found = Array.from({ length: manifest.goldenSamples }, (_, index) => {
    const tensors = (side, specs) => Object.fromEntries(specs.map((spec) => {
      const value = taken(`${index}/${side}/${spec.name}`);
      if (!value || !accepts(value, spec)) {
        refuse(`got ${value ? describe(value) : 'nothing'} for ${side} '${spec.name}' of sample ${index}`, GOLDEN_FILE, describe(spec));
      }
      return [spec.name, value];
    }));
    return {
      inputs: tensors('input', manifest.io.inputs),
      outputs: tensors('output', manifest.io.outputs),
      raw: rawOf(taken, index),
    };
  });
  if (arrays.size) refuse(`unexpected array ${arrays.keys().next().value}`, GOLDEN_FILE, `the arrays of ${found.length} samples`);
  return found;
}

/** What a sample came from, as `predict` takes it; null where that is not known. */
function rawOf(taken, index) {
  const image = taken(`${index}/raw/image`), samples = taken(`${index}/raw/samples`), text = taken(`${index}/raw/text`);
  const place = `${GOLDEN_FILE}, ${index}/raw`;
  if (image) {
    if (image.dtype !== 'uint8' || image.shape.length < 2 || image.shape.length > 3) refuse(`got ${describe(image)}`, place, 'uint8 [H, W, 3] or [H, W]');
    return image;
  }
  if (samples) {
    if (samples.dtype !== 'float32' || samples.shape.length !== 1) refuse(`got ${describe(samples)}`, place, 'float32 [n]');
    return samples.data;
  }
  if (!text) return null;
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(text.data);
  } catch {
    return refuse('no UTF-8', place, 'a text in UTF-8');
  }
}
