/** From a model's token ids to text. */

import { BundleError } from '../errors.js';
import { exactly, Fields } from '../fields.js';
import { numbers } from '../tensor.js';

/** The text postprocessing of a bundle's manifest, checked. */
export function readText(data, where) {
  const row = exactly(data, ['kind', 'output', 'vocabulary', 'stop', 'skip', 'joiner'], where), fields = new Fields(row, where);
  fields.text('output');
  fields.text('vocabulary');
  fields.text('stop', { optional: true });
  if (!Array.isArray(row.skip) || !row.skip.every((token) => typeof token === 'string')) fields.refuse('skip', 'a list of tokens');
  fields.text('joiner', { empty: true });
  return row;
}

/**
 * The text of one sample: from ids [1, n], or from scores [1, n, vocabulary] whose largest decides.
 *
 * @param {Record<string, import('../index.js').Tensor>} outputs
 * @param {{tokens: string[]}} vocabulary
 */
export function textOf(outputs, how, { tokens }) {
  const output = outputs[how.output], scored = output.shape.length === 3 && output.shape[2] > 0;
  const whole = scored || (output.shape.length === 2 && /^u?int/.test(output.dtype));
  if (!whole || output.shape[0] !== 1) {
    throw new BundleError(`got ${output.dtype} [${output.shape}]`, {
      where: `output '${how.output}'`,
      rule: 'ids [1, n], or scores [1, n, vocabulary]',
      wayOut: 'use `run` for the raw outputs',
    });
  }
  let text = '';
  for (const id of scored ? largest(numbers(output), output.shape[2]) : numbers(output)) {
    if (!(id >= 0 && id < tokens.length)) {
      throw new BundleError(`id ${id}`, { where: `output '${how.output}'`, rule: `0 to ${tokens.length - 1}` });
    }
    const token = tokens[id];
    if (token === how.stop) break;
    if (how.skip.includes(token)) continue;
    if (token.startsWith(how.joiner)) text += token.slice(how.joiner.length);
    else text += text ? ` ${token}` : token;
  }
  return text;
}

/** The index of the largest score of each row, the first of equal ones; a NaN counts as the largest, as in numpy. */
function* largest(scores, width) {
  for (let start = 0; start < scores.length; start += width) {
    let best = 0;
    for (let index = 1; index < width && !Number.isNaN(scores[start + best]); index += 1) {
      if (!(scores[start + index] <= scores[start + best])) best = index;
    }
    yield best;
  }
}
