/** What a tensor of an ONNX file declares, against what it holds. */

import { BYTES, numbers, refuse } from './protobuf.js';

const MAX_RANK = 64;
const DIMS = 1, DATA_TYPE = 2, STRINGS = 6, RAW = 9, EXTERNAL = 13, LOCATION = 14;
/** Numbers that are not raw: in float, int32, int64, double and uint64. */
const TYPED = new Set([4, 5, 7, 10, 11]);
/** Elements that a byte of these can hold: 2-bit ones, packed. */
const MOST_IN_A_BYTE = 4;
/** Bits of an element by `TensorProto.DataType`; texts (8) are never raw. */
const BITS = [0, 32, 8, 8, 16, 16, 32, 64, 0, 8, 16, 64, 32, 64, 64, 128, 16, 8, 8, 8, 8, 4, 4, 4, 8, 2, 2];

/** Sizes as they come in, one by one or packed. */
export class Sizes {
  constructor(where) {
    this.where = where;
    this.values = [];
  }

  /** Another field of them. */
  take(value) {
    for (const size of numbers(value, this.where)) {
      this.values.push(size);
      if (size >= 2 ** 63 || this.values.length > MAX_RANK) refuse('sizes below 0 or without end', this.where, `at most ${MAX_RANK} sizes from 0 up`);
    }
  }

  /** Their product; one that is not exact any more is too large for every limit. */
  get elements() {
    return this.values.includes(0) ? 0 : this.values.reduce((product, size) => product * size, 1);
  }
}

/** A tensor, field by field. */
export class Tensor {
  constructor(where) {
    this.where = where;
    this.sizes = new Sizes(where);
    this.type = this.raw = this.typed = this.texts = 0;
  }

  take(number, wire, value) {
    if (number === EXTERNAL || number === LOCATION) {
      // Whatever they hold: a file of ours has neither, so nobody need reason about other parsers' leniency.
      refuse('a tensor keeps its data in another file', this.where, 'all weights inside the ONNX file');
    }
    const isNumber = typeof value === 'number';
    if (number === DIMS) this.sizes.take(value);
    else if (number === DATA_TYPE && isNumber) this.type = value;
    else if (number === RAW && wire === BYTES) this.raw = value.length;
    else if (TYPED.has(number)) this.typed += isNumber ? 1 : value.length;
    else if (number === STRINGS) this.texts += 1;
  }

  /** Refuse a tensor that declares more than it holds: memory would be had for the asking. */
  check() {
    const { elements } = this.sizes, shown = this.sizes.values.slice(0, 8).join(', ');
    if (this.raw && this.raw !== Math.ceil((elements * (BITS[this.type] ?? 0)) / 8)) {
      refuse(`a tensor of sizes [${shown}] in ${this.raw} bytes`, this.where, 'as many bytes as sizes and type say');
    }
    if (!this.raw && elements > Math.max(MOST_IN_A_BYTE * this.typed, this.texts)) {
      refuse(`a tensor of sizes [${shown}] that holds less`, this.where, 'tensors that hold what they declare');
    }
  }
}
