/** All kinds together: what a bundle's `preprocessing` and `postprocessing` may be. */

import { refuse } from '../fields.js';
import { isObject, nameOf } from '../strict-json.js';
import { readClassification } from './classification.js';
import { readDetection } from './detection.js';
import { readImage } from './image.js';
import { readLogMel } from './log-mel.js';
import { readText } from './text.js';
import { readWaveform } from './waveform.js';
import { readWordpiece } from './wordpiece.js';

const BEFORE = { image: readImage, log_mel: readLogMel, waveform: readWaveform, wordpiece: readWordpiece };
const AFTER = { classification: readClassification, detection: readDetection, text: readText };

export function preprocessingFrom(data, where) {
  return read(data, BEFORE, where);
}

export function postprocessingFrom(data, where) {
  return read(data, AFTER, where);
}

function read(data, kinds, where) {
  if (!isObject(data)) refuse(`got ${nameOf(data)}`, where, 'an object');
  const known = typeof data.kind === 'string' && Object.hasOwn(kinds, data.kind);
  if (!known) refuse(`got ${JSON.stringify(data.kind)}`, `${where}.kind`, `one of ${Object.keys(kinds).join(', ')}`);
  return kinds[data.kind](data, where);
}
