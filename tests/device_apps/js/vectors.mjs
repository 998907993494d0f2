/** Prints what the loader computes for each case of the shared vectors, as JSON: `node vectors.mjs FOLDER`. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { classify } from './src/processing/classification.js';
import { detect } from './src/processing/detection.js';
import { geometry } from './src/processing/geometry.js';
import { pixels, prepareImage } from './src/processing/image.js';
import { postprocessingFrom, preprocessingFrom } from './src/processing/kinds.js';
import { prepareLogMel } from './src/processing/log-mel.js';
import { prepareWaveform } from './src/processing/waveform.js';
import { textOf } from './src/processing/text.js';
import { readVocabulary } from './src/processing/vocabulary.js';
import { prepareWordpiece } from './src/processing/wordpiece.js';
import { parse } from './src/strict-json.js';
import { DTYPES } from './src/tensor.js';

const array = ({ dtype, shape, data }) => {
  const kind = DTYPES.get(dtype);
  return { dtype, shape, data: kind.from(data, dtype.endsWith('64') && dtype !== 'float64' ? BigInt : Number) };
};
const arrays = (tensors) => Object.fromEntries(Object.entries(tensors).map(([name, tensor]) => [name, array(tensor)]));
const vocabulary = (tokens) => readVocabulary(new TextEncoder().encode(tokens.join('\n')), 'vocabulary');

const KINDS = {
  image: ({ preprocessing, raw }) => prepareImage(pixels(array(raw.image)), before(preprocessing)),
  waveform: ({ preprocessing, raw }) => prepareWaveform(array(raw.samples).data, before(preprocessing)),
  log_mel: ({ preprocessing, raw }) => prepareLogMel(array(raw.samples).data, before(preprocessing)),
  wordpiece: ({ preprocessing, raw, vocabulary: tokens }) => prepareWordpiece(raw.text, before(preprocessing), vocabulary(tokens)),
  classification: ({ postprocessing, outputs, labels }) => classify(arrays(outputs), labels, after(postprocessing)),
  detection: ({ postprocessing, preprocessing, outputs, labels, image }) => {
    const how = preprocessing && before(preprocessing), size = how?.size ?? [32, 48];
    const seen = how ? { size, image, placed: geometry(...image, how) } : { size, image: size, placed: null };
    return detect(arrays(outputs), labels, after(postprocessing), seen);
  },
  text: ({ postprocessing, outputs, vocabulary: tokens }) => textOf(arrays(outputs), after(postprocessing), vocabulary(tokens)),
};

const before = (data) => preprocessingFrom(data, 'preprocessing');
const after = (data) => postprocessingFrom(data, 'postprocessing');

/** Texts and numbers alone: typed arrays and 64-bit integers are not JSON. */
const plain = (_, value) => (ArrayBuffer.isView(value) ? Array.from(value, Number) : value);

const found = {};
for (const [kind, compute] of Object.entries(KINDS)) {
  const text = readFileSync(join(process.argv[2], `${kind}.json`), 'utf8');
  found[kind] = parse(new TextEncoder().encode(`{"cases": ${text}}`), kind).cases.map(compute);
}
console.log(JSON.stringify(found, plain));
