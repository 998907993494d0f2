/** What an ONNX file holds, read before ONNX Runtime sees a byte.
 *
 * ONNX is protocol buffers: a message is a sequence of (field number, wire type, value). This walker follows the fields
 * through which graphs, nodes and tensors are reached (onnx/onnx.proto, IR version 13) and skips the rest. */

import { BundleError } from './errors.js';

/** Operator sets whose kernels ONNX Runtime itself has. */
const DOMAINS = new Set(['', 'ai.onnx', 'ai.onnx.ml', 'com.microsoft']);
/** Operators that carry compiled code or call into Python. */
const REFUSED_OPERATORS = new Set(['EPContext', 'PythonOp', 'PythonOpGrad', 'ATen']);
const MAX_DEPTH = 32;
const MAX_NODES = 200_000;

const VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5;

// For each message: the fields that lead to another one.
const NESTED = {
  model: { 7: 'graph', 8: 'opset', 20: 'training', 25: 'function' },
  training: { 1: 'graph', 2: 'graph' },
  graph: { 1: 'node', 5: 'tensor', 15: 'sparse' },
  function: { 7: 'node', 9: 'opset', 11: 'attribute' },
  node: { 5: 'attribute' },
  attribute: { 5: 'tensor', 6: 'graph', 10: 'tensor', 11: 'graph', 22: 'sparse', 23: 'sparse' },
  sparse: { 1: 'tensor', 2: 'tensor' },
  tensor: {},
  opset: {},
};
const DOMAIN_FIELD = { node: 7, opset: 1, function: 10 };
const NODE_OPERATOR = 4, TENSOR_EXTERNAL = 13, TENSOR_LOCATION = 14;

/**
 * Walk an ONNX model and refuse what could reach beyond it.
 *
 * @param {Uint8Array} data
 * @param {string} where the file's name, for errors
 * @returns {{opsets: number, nodes: number, tensors: number}} how much it holds
 * @throws {BundleError} the bytes are no ONNX model; a tensor keeps its data in another file; an operator comes from a
 *   domain that is not ONNX Runtime's own or carries compiled code; nesting or counts are over the limits
 */
export function scan(data, where) {
  if (new TextDecoder('latin1').decode(data.subarray(4, 8)) === 'ORTM') {
    refuse('an ORT-format model', where, 'an ONNX model; ORT files are made for one machine');
  }
  const found = { graphs: 0, opsets: 0, nodes: 0, tensors: 0 };
  const stack = [['model', data, 0]]; // A stack instead of recursion.
  while (stack.length) {
    const [kind, message, depth] = stack.pop();
    if (depth > MAX_DEPTH) refuse('graphs nested too deeply', where, `at most ${MAX_DEPTH} levels`);
    if (kind === 'graph') found.graphs += 1;
    const texts = new Map();
    for (const [number, wire, value] of fields(message, where)) {
      if (kind === 'tensor' && (number === TENSOR_EXTERNAL || number === TENSOR_LOCATION)) {
        // Whatever they hold: a file of ours has neither, so nobody need reason about other parsers' leniency.
        refuse('a tensor keeps its data in another file', where, 'all weights inside the ONNX file');
      }
      if (wire !== BYTES) continue;
      // The last text counts. A field of another wire type than its own is unknown to a parser: it must not replace a
      // text here that the parser keeps.
      if (Object.hasOwn(NESTED[kind], number)) stack.push([NESTED[kind][number], value, depth + 1]);
      else texts.set(number, value);
    }
    take(kind, texts, found, where);
  }
  if (!found.graphs || !found.opsets) refuse('no graph or no operator set', where, 'an ONNX model');
  return { opsets: found.opsets, nodes: found.nodes, tensors: found.tensors };
}

function take(kind, texts, found, where) {
  if (Object.hasOwn(DOMAIN_FIELD, kind)) {
    const domain = text(texts.get(DOMAIN_FIELD[kind]));
    if (!DOMAINS.has(domain)) {
      refuse(`operator domain ${JSON.stringify(domain)}`, where, `one of ${[...DOMAINS].slice(1).join(', ')}`);
    }
  }
  if (kind === 'opset') found.opsets += 1;
  if (kind === 'tensor') found.tensors += 1;
  if (kind !== 'node') return;
  const operator = text(texts.get(NODE_OPERATOR));
  if (REFUSED_OPERATORS.has(operator)) {
    refuse(`operator ${operator}`, where, 'operators without compiled or foreign code');
  }
  found.nodes += 1;
  if (found.nodes > MAX_NODES) refuse(`more than ${MAX_NODES} nodes`, where, `at most ${MAX_NODES} nodes`);
}

// Replacement characters are in no name that is allowed, so bytes that are not UTF-8 are refused with the rest.
function text(value) {
  return value === undefined ? '' : new TextDecoder('utf-8', { ignoreBOM: true }).decode(value);
}

/** (field number, wire type, bytes or null) of each field of a message. */
function* fields(data, where) {
  const reader = { data, position: 0, where };
  while (reader.position < data.length) {
    const tag = varint(reader);
    const number = Math.floor(tag / 8), wire = tag % 8;
    if (number < 1 || number >= 2 ** 29) refuse(`field number ${number}`, where, 'protocol buffers');
    if (wire === VARINT) {
      varint(reader);
      yield [number, wire, null];
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

/** The number at the reader's position. It is exact up to 2^53: no field number or length that could be right is larger. */
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

function refuse(problem, where, rule) {
  throw new BundleError(problem, {
    where,
    rule,
    wayOut: 'export the model with edgekit, or do not trust the file',
  });
}
