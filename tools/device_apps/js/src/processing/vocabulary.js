/** A model's tokens, from a file with one a line. */

import { BundleError } from '../errors.js';

const MAX_TOKENS = 2_000_000;

/**
 * Tokens by id, and ids by token. Only a line feed ends a line (a carriage return before it is dropped): tokens may hold
 * any other separator.
 *
 * @param {Uint8Array} data
 * @returns {{tokens: string[], index: Map<string, number>}}
 * @throws {BundleError} the bytes are no UTF-8, or a token comes twice
 */
export function readVocabulary(data, where) {
  let text;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(data);
  } catch {
    throw new BundleError('no UTF-8', { where, rule: 'one token a line in UTF-8' });
  }
  const lines = (text.endsWith('\n') ? text.slice(0, -1) : text).split('\n');
  const tokens = lines.map((line) => (line.endsWith('\r') ? line.slice(0, -1) : line));
  const index = new Map(tokens.map((token, id) => [token, id]));
  if (index.size < tokens.length || tokens.length > MAX_TOKENS) {
    throw new BundleError(`${tokens.length} tokens, ${tokens.length - index.size} of them again`, { where, rule: `each token once, at most ${MAX_TOKENS}` });
  }
  return { tokens, index };
}
