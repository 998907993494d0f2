/** From text to token ids, as BERT and its relatives were trained: Devlin et al., BERT (2019); Wu et al., Google's Neural
 * Machine Translation System (2016), 4.1. Lengths and positions are in code points, as in Python. */

import { BundleError, DataError } from '../errors.js';
import { exactly, Fields } from '../fields.js';
import { isObject } from '../strict-json.js';

const KEYS = ['kind', 'vocabulary', 'lowercase', 'length', 'unknown', 'first', 'last', 'padding', 'inputs'];
const MAX_CHARACTERS = 1_000_000, MAX_LENGTH = 1_000_000;
/** A longer word becomes the unknown token at once, as in BERT. */
const LONGEST_WORD = 100;
/** Code points that BERT takes for words of their own. */
const IDEOGRAPHS = [
  [0x4e00, 0x9fff], [0x3400, 0x4dbf], [0x20000, 0x2a6df], [0x2a700, 0x2b73f], [0x2b740, 0x2b81f], [0x2b820, 0x2ceaf],
  [0xf900, 0xfaff], [0x2f800, 0x2fa1f],
];
/** ASCII signs count, currency and mathematics among them; elsewhere what Unicode calls punctuation. */
const PUNCTUATION = /[!-/:-@[-`{-~\p{P}]/u;

/** The wordpiece preprocessing of a bundle's manifest, checked. */
export function readWordpiece(data, where) {
  const row = exactly(data, KEYS, where), fields = new Fields(row, where);
  fields.text('vocabulary');
  fields.flag('lowercase');
  fields.whole('length', Math.max((row.first !== null) + (row.last !== null), 1), MAX_LENGTH, true);
  fields.text('unknown');
  for (const name of ['first', 'last', 'padding']) fields.text(name, { optional: true });
  if (row.length !== null && row.padding === null) fields.refuse('padding', 'a token, since ids are padded to `length`');
  if (!isObject(row.inputs)) fields.refuse('inputs', 'an object with ids, mask and types');
  const inputs = exactly(row.inputs, ['ids', 'mask', 'types'], `${where}.inputs`);
  const names = Object.values(inputs).filter((name) => name !== null);
  const fits = inputs.ids !== null && names.every((name) => typeof name === 'string' && name) && new Set(names).size === names.length;
  if (!fits) fields.refuse('inputs', 'the name of an input for `ids`, and others or null for `mask` and `types`');
  return { ...row, inputs };
}

/** Refuse a vocabulary that lacks one of the special tokens. */
export function checkVocabulary(how, vocabulary, where) {
  for (const name of ['unknown', 'first', 'last', 'padding']) {
    if (how[name] !== null && !vocabulary.index.has(how[name])) {
      throw new BundleError(`got ${JSON.stringify(how[name])}`, { where: `${where}.${name}`, rule: `a token of ${how.vocabulary}` });
    }
  }
}

/** The model's inputs int64 [1, length] by name. */
export function prepareWordpiece(text, how, vocabulary) {
  if (typeof text !== 'string') {
    throw new DataError(`got ${typeof text}`, { where: 'text', rule: 'a text, or tensors by name for its ids' });
  }
  if (text.length > 2 * MAX_CHARACTERS || [...text].length > MAX_CHARACTERS) {
    throw new DataError(`${text.length} characters`, { where: 'text', rule: `at most ${MAX_CHARACTERS}` });
  }
  const id = (token) => (token === null ? [] : [vocabulary.index.get(token)]);
  let pieces = [...words(text, how.lowercase)].flatMap((word) => piecesOf(word, vocabulary.index) ?? id(how.unknown));
  if (how.length !== null) pieces = pieces.slice(0, how.length - (how.first !== null) - (how.last !== null));
  const ids = [...id(how.first), ...pieces, ...id(how.last)], length = how.length ?? ids.length;
  const row = (value) => ({ dtype: 'int64', shape: [1, length], data: BigInt64Array.from({ length }, (_, index) => BigInt(value(index))) });
  const made = {};
  made[how.inputs.ids] = row((index) => (index < ids.length ? ids[index] : id(how.padding)[0]));
  if (how.inputs.mask !== null) made[how.inputs.mask] = row((index) => (index < ids.length ? 1 : 0));
  if (how.inputs.types !== null) made[how.inputs.types] = row(() => 0);
  return made;
}

/** The words of a text, as BERT's basic tokenizer splits it. */
function* words(text, lowercase) {
  let spaced = Array.from(text, clean).join('');
  if (lowercase) {
    const bare = spaced.normalize('NFD').replace(/\p{Mn}/gu, '');
    // Each character by itself: a sigma at the end of a word stays the same letter as anywhere else.
    spaced = Array.from(bare, (character) => character.toLowerCase()).join('');
  }
  for (const chunk of spaced.split(' ')) {
    let word = '';
    for (const character of chunk) {
      if (!PUNCTUATION.test(character)) {
        word += character;
        continue;
      }
      if (word) yield word;
      yield character;
      word = '';
    }
    if (word) yield word;
  }
}

/** The character as it goes on: nothing, a space, itself, or an ideograph between spaces. */
function clean(character) {
  if (character === '\t' || character === '\n' || character === '\r') return ' ';
  if (/[\p{Cc}\p{Cf}\p{Co}\p{Cs}\ufffd]/u.test(character)) return '';
  if (/\p{Z}/u.test(character)) return ' ';
  const code = character.codePointAt(0);
  return IDEOGRAPHS.some(([low, high]) => low <= code && code <= high) ? ` ${character} ` : character;
}

/** Ids of a word's longest pieces from the left; null where it has none. */
function piecesOf(word, index) {
  const characters = [...word], found = [];
  if (characters.length > LONGEST_WORD) return null;
  for (let start = 0; start < characters.length; ) {
    let end = characters.length;
    const piece = () => (start ? '##' : '') + characters.slice(start, end).join('');
    while (end > start && !index.has(piece())) end -= 1;
    if (end === start) return null;
    found.push(index.get(piece()));
    start = end;
  }
  return found;
}
