/** Tensors as plain objects `{dtype, shape, data}`; `dtype` is numpy's name. */

import { DataError } from './errors.js';

/** Bytes and array of each dtype. float16 stays in its bits: not every engine has a Float16Array. */
export const DTYPES = new Map([
  ['bool', Uint8Array], ['int8', Int8Array], ['int16', Int16Array], ['int32', Int32Array], ['int64', BigInt64Array],
  ['uint8', Uint8Array], ['uint16', Uint16Array], ['uint32', Uint32Array], ['uint64', BigUint64Array],
  ['float16', Uint16Array], ['float32', Float32Array], ['float64', Float64Array],
]);

/**
 * A tensor from what users have: one of ours, one of ONNX Runtime's (`type`, `dims`), or `{data, dims}`.
 *
 * @param {any} value
 * @param {import('./index.js').TensorSpec} spec what it must be
 * @returns {import('./index.js').Tensor}
 * @throws {DataError} it is something else; the text names both sides
 */
export function tensor(value, spec) {
  const dtype = value?.dtype ?? value?.type ?? spec.dtype, shape = value?.shape ?? value?.dims;
  const found = { dtype, shape: shape && Array.from(shape, Number), data: bits(value?.data) };
  if (!accepts(found, spec)) {
    throw new DataError(`got ${describe(found)}`, {
      where: `tensor '${spec.name}'`,
      rule: `expected ${describe(spec)}`,
      wayOut: 'convert the array, or leave the preprocessing to the bundle (predict)',
    });
  }
  return found;
}

/** Whether a tensor has the dtype, the rank and the fixed dimensions of `spec`, and as many values as its shape says. */
export function accepts(value, spec) {
  return (
    value.dtype === spec.dtype &&
    value.data instanceof DTYPES.get(spec.dtype) &&
    Array.isArray(value.shape) &&
    value.shape.length === spec.shape.length &&
    value.shape.every((size, index) => typeof spec.shape[index] === 'string' || spec.shape[index] === size) &&
    value.data.length === count(value.shape)
  );
}

export function count(shape) {
  return shape.reduce((product, size) => product * size, 1);
}

export function describe({ dtype, shape }) {
  return `${dtype} [${shape ? shape.join(', ') : 'no shape'}]`;
}

/** Its values as numbers. 64-bit integers beyond 2^53 lose their last bits, as in Python's float64. */
export function numbers({ dtype, data }) {
  if (dtype === 'float16') return Float64Array.from(data, half);
  return data instanceof BigInt64Array || data instanceof BigUint64Array ? Float64Array.from(data, Number) : data;
}

/** The largest absolute difference; infinite where shapes differ or something is not a number on one side only. */
export function maxDifference(value, expected) {
  if (value.shape.join() !== expected.shape.join()) return Infinity;
  const [one, other] = [numbers(value), numbers(expected)];
  let largest = 0;
  for (let i = 0; i < one.length; i += 1) {
    if (Object.is(one[i], other[i]) || one[i] === other[i]) continue;
    const difference = Math.abs(one[i] - other[i]);
    largest = Math.max(largest, Number.isNaN(difference) ? Infinity : difference);
  }
  return largest;
}

/** Float16Array, where an engine has it, as bits. */
function bits(data) {
  const is16 = typeof Float16Array !== 'undefined' && data instanceof Float16Array;
  return is16 ? new Uint16Array(data.buffer, data.byteOffset, data.length) : data;
}

/** IEEE 754 binary16. */
function half(word) {
  const sign = word & 0x8000 ? -1 : 1, exponent = (word >> 10) & 31, fraction = word & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 25) * (1024 + fraction) : 2 ** -24 * fraction);
}
