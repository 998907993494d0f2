/** Checks of JSON values against what they must be; the error names the path to the fault. */

import { BundleError } from './errors.js';
import { isObject, nameOf } from './strict-json.js';

/** float32 goes little further, and a quotient of two such numbers still has to fit. */
const LARGEST = 1e30;

/** @returns {never} */
export function refuse(problem, where, rule, wayOut = '') {
  throw new BundleError(problem, { where, rule, wayOut });
}

const TYPES = {
  text: (value) => typeof value === 'string',
  object: isObject,
  list: Array.isArray,
  integer: Number.isInteger,
};

/**
 * `data` as an object that has `keys` of these types, and in strict reading no others.
 *
 * @param {unknown} data
 * @param {Record<string, string>} keys types by name: text, object, list, integer, or any of these with `?` for null
 */
export function typed(data, keys, where, strict = true) {
  const row = exactly(data, Object.keys(keys), where, strict);
  for (const [key, kind] of Object.entries(keys)) {
    const fits = TYPES[kind.replace('?', '')](row[key]) || (kind.endsWith('?') && row[key] === null);
    if (!fits) refuse(`got ${nameOf(row[key])}`, `${where}.${key}`, `expected ${kind.replace('?', ' or null')}`);
  }
  return row;
}

/** `data` as an object that has all of `keys`, and in strict reading no others. */
export function exactly(data, keys, where, strict = true) {
  if (!isObject(data)) refuse(`got ${nameOf(data)}`, where, 'an object');
  for (const key of keys) {
    if (!Object.hasOwn(data, key)) refuse('missing', `${where}.${key}`, `each of the keys ${keys.join(', ')}`);
  }
  const unknown = Object.keys(data).filter((key) => !keys.includes(key)).sort();
  if (strict && unknown.length) refuse(`unknown key ${JSON.stringify(unknown[0])}`, where, `only ${keys.join(', ')}`);
  return Object.fromEntries(keys.map((key) => [key, data[key]]));
}

/** Checks of single fields of `data`, an object that stands at `where`. */
export class Fields {
  constructor(data, where) {
    this.data = data;
    this.where = where;
  }

  refuse(name, rule) {
    refuse(`got ${JSON.stringify(this.data[name])}`, `${this.where}.${name}`, rule);
  }

  choice(name, choices) {
    if (!choices.includes(this.data[name])) this.refuse(name, `one of ${choices.join(', ')}`);
  }

  flag(name) {
    if (typeof this.data[name] !== 'boolean') this.refuse(name, 'true or false');
  }

  whole(name, low, high, optional = false) {
    const value = this.data[name];
    if (!(optional && value === null) && !isWhole(value, low, high)) {
      this.refuse(name, `${optional ? 'null or ' : ''}an integer from ${low} to ${high}`);
    }
  }

  number(name, low = -LARGEST, high = LARGEST) {
    if (!isNumber(this.data[name], low, high)) this.refuse(name, `a number from ${low} to ${high}`);
  }

  text(name, { optional = false, empty = false } = {}) {
    const value = this.data[name];
    if (!(optional && value === null) && !(typeof value === 'string' && (value || empty))) {
      this.refuse(name, optional ? 'null or a text' : 'a text');
    }
  }

  none(name, rule) {
    if (this.data[name] !== null) this.refuse(name, rule);
  }
}

export function isWhole(value, low, high) {
  return Number.isInteger(value) && low <= value && value <= high;
}

export function isNumber(value, low = -LARGEST, high = LARGEST) {
  return typeof value === 'number' && low <= value && value <= high;
}
