/** JSON from a stranger: no duplicate keys, no NaN, no depth or size without bound. `JSON.parse` keeps the last of two
 * equal keys, and a name that two readers understand differently is how a check is passed by. */

import { BundleError } from './errors.js';

const MAX_JSON_BYTES = 8_000_000;
const MAX_DEPTH = 24;
const MAX_VALUES = 400_000;
const MAX_INTEGER = 2n ** 63n;

const NUMBER = /-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?/y;
const PLAIN = /[^"\\\u0000-\u001f]*/y; // eslint-disable-line no-control-regex
const SPACE = /[ \t\n\r]*/y;
const ESCAPES = { '"': '"', '\\': '\\', '/': '/', b: '\b', f: '\f', n: '\n', r: '\r', t: '\t' };

/**
 * The object in `data`. Objects come without a prototype, so that a key such as `__proto__` is a key like any other.
 *
 * @param {Uint8Array} data
 * @param {string} where the file's name, for errors
 * @returns {Record<string, any>}
 * @throws {BundleError} the bytes are not UTF-8 JSON, or hold a duplicate key, a number JSON does not have, a text that
 *   is no Unicode, more than 24 levels or 400,000 values, or anything but an object at the top
 */
export function parse(data, where) {
  if (data.length > MAX_JSON_BYTES) {
    throw new BundleError(`${data.length} bytes`, { where, rule: `at most ${MAX_JSON_BYTES} bytes of JSON` });
  }
  let text;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(data);
  } catch {
    throw new BundleError('not JSON: not UTF-8', { where, rule: 'JSON in UTF-8' });
  }
  const value = new Parser(text, where).whole();
  if (!isObject(value)) refuse(`got ${nameOf(value)}`, where, 'expected an object');
  return value;
}

/** Whether a parsed value is an object (no list, no null). */
export function isObject(value) {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** What kind of JSON value this is, for errors. */
export function nameOf(value) {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'a list';
  return { string: 'a text', number: 'a number', boolean: 'a truth value', object: 'an object' }[typeof value] ?? 'nothing';
}

class Parser {
  constructor(text, where) {
    this.text = text;
    this.where = where;
    this.at = 0;
    this.values = 0;
  }

  whole() {
    const value = this.value(1);
    this.space();
    if (this.at < this.text.length) this.fail('something follows the end');
    return value;
  }

  value(depth) {
    if (depth > MAX_DEPTH) refuse('nested too deeply', this.where, `at most ${MAX_DEPTH} levels`);
    this.count();
    this.space();
    const first = this.text[this.at];
    if (first === '{') return this.object(depth);
    if (first === '[') return this.list(depth);
    if (first === '"') return this.string();
    for (const [word, value] of [['true', true], ['false', false], ['null', null]]) {
      if (this.text.startsWith(word, this.at)) {
        this.at += word.length;
        return value;
      }
    }
    for (const word of ['NaN', 'Infinity', '-Infinity']) {
      if (this.text.startsWith(word, this.at)) refuse(`got ${word}`, this.where, 'numbers that JSON has');
    }
    return this.number();
  }

  object(depth) {
    const result = Object.create(null);
    this.at += 1;
    if (this.next('}')) return result;
    do {
      this.space();
      if (this.text[this.at] !== '"') this.fail('a key is no text');
      this.count();
      const key = this.string();
      if (key in result) refuse(`key ${JSON.stringify(key)} stands there twice`, this.where, 'each key once');
      if (!this.next(':')) this.fail("no ':' after a key");
      result[key] = this.value(depth + 1);
    } while (this.next(','));
    if (!this.next('}')) this.fail('an object does not end');
    return result;
  }

  list(depth) {
    const result = [];
    this.at += 1;
    if (this.next(']')) return result;
    do result.push(this.value(depth + 1));
    while (this.next(','));
    if (!this.next(']')) this.fail('a list does not end');
    return result;
  }

  string() {
    let result = '';
    this.at += 1;
    for (;;) {
      result += this.match(PLAIN)[0];
      const character = this.text[this.at];
      if (character === '"') break;
      if (character !== '\\') this.fail('a text does not end, or holds a control character');
      const escape = this.text[this.at + 1];
      if (escape === 'u') {
        const digits = this.text.slice(this.at + 2, this.at + 6);
        if (!/^[0-9a-fA-F]{4}$/.test(digits)) this.fail('an escape is not \\u and four hexadecimal digits');
        result += String.fromCharCode(parseInt(digits, 16));
        this.at += 6;
      } else {
        if (escape === undefined || !Object.hasOwn(ESCAPES, escape)) this.fail('an unknown escape');
        result += ESCAPES[escape];
        this.at += 2;
      }
    }
    this.at += 1;
    if (/\p{Surrogate}/u.test(result)) refuse(`${JSON.stringify(result)} is no Unicode text`, this.where, 'surrogates come in pairs');
    return result;
  }

  number() {
    const found = this.match(NUMBER);
    if (!found) this.fail('neither a text, a number, true, false, null, an object nor a list');
    const value = Number(found[0]);
    const whole = found[1] === undefined && found[2] === undefined;
    const large = whole && found[0].length > 15 && BigInt(found[0]) ** 2n >= MAX_INTEGER ** 2n;
    if (!Number.isFinite(value) || large) refuse(`${found[0].slice(0, 40)} is out of range`, this.where, 'numbers that fit in 64 bits');
    return value;
  }

  next(character) {
    this.space();
    if (this.text[this.at] !== character) return false;
    this.at += 1;
    return true;
  }

  space() {
    this.match(SPACE);
  }

  match(pattern) {
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.text);
    if (found) this.at = pattern.lastIndex;
    return found;
  }

  count() {
    this.values += 1;
    if (this.values > MAX_VALUES) refuse(`more than ${MAX_VALUES} values`, this.where, `at most ${MAX_VALUES} values`);
  }

  fail(problem) {
    throw new BundleError(`not JSON: ${problem} (character ${this.at})`, { where: this.where, rule: 'JSON in UTF-8' });
  }
}

function refuse(problem, where, rule) {
  throw new BundleError(problem, { where, rule });
}
