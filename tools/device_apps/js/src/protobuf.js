/** Protocol buffers, as far as a scan needs them: fields of a message, numbers, sizes.
 *
 * A message is a sequence of (field number, wire type, value); see protobuf.dev/programming-guides/encoding. */

import { BundleError } from './errors.js';

export const VARINT = 0, BYTES = 2;
const FIXED64 = 1, FIXED32 = 5;

/** (field number, wire type, number or bytes) of each field of a message; groups, which nobody writes, are none. */
export function* fields(data, where) {
  const reader = { data, position: 0, where };
  while (reader.position < data.length) {
    const tag = varint(reader), number = Math.floor(tag / 8), wire = tag % 8;
    if (number < 1 || number >= 2 ** 29) refuse(`field number ${number}`, where, 'protocol buffers');
    if (wire === VARINT) {
      yield [number, wire, varint(reader)];
      continue;
    }
    let length;
    if (wire === BYTES) length = varint(reader);
    else if (wire === FIXED32 || wire === FIXED64) length = wire === FIXED32 ? 4 : 8;
    else refuse(`wire type ${wire}`, where, 'protocol buffers without groups');
    const left = data.length - reader.position;
    if (length > left) refuse(`a field of ${length} bytes where ${left} are left`, where, 'a whole ONNX file');
    yield [number, wire, data.subarray(reader.position, reader.position + length)];
    reader.position += length;
  }
}

/** The numbers of a repeated field: one, or several packed. */
export function* numbers(value, where) {
  if (typeof value === 'number') {
    yield value;
    return;
  }
  const reader = { data: value, position: 0, where };
  while (reader.position < value.length) yield varint(reader);
}

/** Say why a model is not to be used. @returns {never} */
export function refuse(problem, where, rule) {
  throw new BundleError(problem, { where, rule, wayOut: 'export the model with edgekit, or do not trust the file' });
}

/** The number at the reader's position. It is exact up to 2^53: no field number, length or size that could be right is
 * larger. */
function varint(reader) {
  for (let result = 0, factor = 1, length = 1; ; factor *= 128, length += 1) {
    if (reader.position >= reader.data.length) refuse('the file ends within a number', reader.where, 'a whole ONNX file');
    if (length > 10) refuse('a number of more than 10 bytes', reader.where, 'protocol buffers');
    const byte = reader.data[reader.position];
    reader.position += 1;
    result += (byte & 0x7f) * factor;
    if (byte < 0x80) return result;
  }
}
