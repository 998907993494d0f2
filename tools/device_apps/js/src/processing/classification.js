/** From a model's scores to names and confidences. */

import { BundleError } from '../errors.js';
import { exactly, Fields } from '../fields.js';
import { numbers } from '../tensor.js';

export const SCORES = ['softmax', 'sigmoid', 'probabilities'];

/** The classification postprocessing of a bundle's manifest, checked. */
export function readClassification(data, where) {
  const row = exactly(data, ['kind', 'output', 'scores', 'top'], where), fields = new Fields(row, where);
  fields.text('output');
  fields.choice('scores', SCORES);
  fields.whole('top', 1, 100);
  return row;
}

/**
 * A prediction for each row of the output.
 *
 * @param {Record<string, import('../index.js').Tensor>} outputs
 * @param {string[]} labels
 * @returns {import('../index.js').Prediction[]}
 */
export function classify(outputs, labels, how) {
  const { shape } = outputs[how.output];
  if (shape.length !== 2 || shape[1] !== labels.length) {
    throw new BundleError(`scores [${shape}] for ${labels.length} labels`, {
      where: `output '${how.output}'`,
      rule: '[samples, classes] with one score for each label',
      wayOut: 'use `run` for the raw outputs',
    });
  }
  const all = probabilities(outputs[how.output], how.scores);
  return Array.from({ length: shape[0] }, (_, row) => {
    const shares = all.subarray(row * shape[1], (row + 1) * shape[1]);
    // Of equal ones the class of the lower index comes first: the sort is stable.
    const order = Array.from(shares.keys()).sort((one, other) => shares[other] - shares[one] || 0);
    const named = (index) => ({ label: labels[index], index, confidence: shares[index] });
    return { ...named(order[0]), top: order.slice(0, how.top).map(named), probabilities: Array.from(shares) };
  });
}

/** Probabilities float64 of the same shape; softmax goes along the last axis. */
export function probabilities(scores, kind) {
  const exact = Float64Array.from(numbers(scores)), classes = scores.shape.at(-1);
  if (kind === 'probabilities') return exact;
  if (kind === 'sigmoid') {
    return exact.map((score) => {
      const small = Math.exp(-Math.abs(score)); // exp of a non-positive number cannot overflow.
      return score >= 0 ? 1 / (1 + small) : small / (1 + small);
    });
  }
  for (let start = 0; start < exact.length; start += classes) {
    const row = exact.subarray(start, start + classes);
    const most = row.reduce((one, other) => Math.max(one, other), -Infinity);
    row.forEach((score, index) => { row[index] = Math.exp(score - most); });
    const sum = row.reduce((one, other) => one + other, 0);
    row.forEach((share, index) => { row[index] = share / sum; });
  }
  return exact;
}
