/** Arrays in numpy's .npy format, version 1.0: little-endian numbers in C order. */

import { BundleError } from './errors.js';
import { DTYPES, count } from './tensor.js';

const CODES = {
  '|b1': 'bool', '|i1': 'int8', '<i2': 'int16', '<i4': 'int32', '<i8': 'int64', '|u1': 'uint8', '<u2': 'uint16',
  '<u4': 'uint32', '<u8': 'uint64', '<f2': 'float16', '<f4': 'float32', '<f8': 'float64',
};
const MAGIC = [0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0];
const HEADER = /^\{ ?'descr': '([^']*)', 'fortran_order': False, 'shape': \(((?:\d{1,15}, ?)*\d{0,15})\),? ?\} *\n$/;

/**
 * The array in an .npy file.
 *
 * @param {Uint8Array} bytes
 * @param {string} where
 * @returns {import('./index.js').Tensor}
 * @throws {BundleError} it is no such file
 */
export function readNpy(bytes, where) {
  const fail = (problem, rule = 'an .npy of version 1.0 that holds numbers in C order') => {
    throw new BundleError(problem, { where, rule });
  };
  if (MAGIC.some((byte, index) => bytes[index] !== byte) || bytes.length < 10) fail('no .npy of version 1.0');
  const start = 10 + bytes[8] + 256 * bytes[9];
  const found = HEADER.exec(new TextDecoder('latin1').decode(bytes.subarray(10, start)));
  if (!found || !Object.hasOwn(CODES, found[1])) fail('another header than numpy writes for numbers');
  const dtype = CODES[found[1]], shape = found[2].split(',').filter((size) => size.trim()).map(Number);
  const kind = DTYPES.get(dtype), body = bytes.slice(start);
  if (count(shape) * kind.BYTES_PER_ELEMENT !== body.length) {
    fail(`${body.length} bytes for ${dtype} [${shape}]`, `${count(shape) * kind.BYTES_PER_ELEMENT} bytes`);
  }
  return { dtype, shape, data: new kind(body.buffer) };
}
