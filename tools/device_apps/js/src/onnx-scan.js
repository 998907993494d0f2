/** What an ONNX file holds, read before ONNX Runtime sees a byte.
 *
 * ONNX is protocol buffers: a message is a sequence of (field number, wire type, value). This walker follows the fields
 * through which graphs, nodes and tensors are reached (onnx/onnx.proto, IR version 13) and skips the rest. */

import { Sizes, Tensor } from './onnx-tensor.js';
import { BYTES, fields, refuse } from './protobuf.js';

/** Operator sets whose kernels ONNX Runtime itself has. */
const DOMAINS = new Set(['', 'ai.onnx', 'ai.onnx.ml', 'com.microsoft']);
/** Operators that carry compiled code or call into Python. */
const REFUSED_OPERATORS = new Set(['EPContext', 'PythonOp', 'PythonOpGrad', 'ATen']);
const MAX_DEPTH = 32, MAX_NODES = 200_000, MAX_TENSORS = 200_000;
/** Of all messages that are looked into: what bounds the time that a scan takes. */
const MAX_FIELDS = 5_000_000;
/** Of all sparse tensors together, zeros included: ONNX Runtime writes them out when it loads a model. */
const MAX_SPARSE_ELEMENTS = 2 ** 26;
/** Metadata under this key can set options of the session in ONNX Runtime. */
const SETTINGS_KEY = 'ort_config';

// For each message: the fields that lead to another one.
const NESTED = {
  model: { 7: 'graph', 8: 'opset', 14: 'property', 20: 'training' },
  training: { 1: 'graph', 2: 'graph' },
  graph: { 1: 'node', 5: 'tensor', 15: 'sparse' },
  node: { 5: 'attribute' },
  attribute: { 5: 'tensor', 6: 'graph', 10: 'tensor', 11: 'graph', 22: 'sparse', 23: 'sparse' },
  sparse: { 1: 'tensor', 2: 'tensor' },
  opset: {},
  property: {},
};
/** Tensors that stand there once; a parser would merge the parts of one, and sizes that it declares multiply. */
const ONCE = new Set(['attribute 5', 'attribute 22', 'sparse 1', 'sparse 2']);
const DOMAIN_FIELD = { node: 7, opset: 1 };
const NODE_OPERATOR = 4, PROPERTY_KEY = 1, MODEL_FUNCTION = 25, SPARSE_SIZES = 3;

/**
 * Walk an ONNX model and refuse what could reach beyond it, or asks for more than it holds.
 *
 * @param {Uint8Array} data
 * @param {string} where the file's name, for errors
 * @throws {BundleError} the bytes are no ONNX model; a tensor keeps its data in another file or holds less than it
 *   declares; an operator comes from a domain that is not ONNX Runtime's own or carries compiled code; the model has
 *   functions or session settings of its own; nesting or counts are over the limits
 */
export function scan(data, where) {
  if (new TextDecoder('latin1').decode(data.subarray(4, 8)) === 'ORTM') {
    refuse('an ORT-format model', where, 'an ONNX model; ORT files are made for one machine');
  }
  const found = { where, fields: 0, graphs: 0, opsets: 0, nodes: 0, tensors: 0, sparseElements: 0 };
  const stack = [['model', data, 0]]; // A stack instead of recursion.
  while (stack.length) {
    const [kind, message, depth] = stack.pop();
    if (depth > MAX_DEPTH) refuse('graphs nested too deeply', where, `at most ${MAX_DEPTH} levels`);
    if (kind === 'tensor') takeTensor(message, found);
    else for (const [below, value] of inside(kind, message, found)) stack.push([below, value, depth + 1]);
  }
  if (!found.graphs || !found.opsets) refuse('no graph or no operator set', where, 'an ONNX model');
}

/** Take a message, and return those inside of it with their kinds. */
function inside(kind, message, found) {
  const nested = NESTED[kind], below = [], texts = new Map(), sizes = new Sizes(found.where), seen = new Set();
  for (const [number, wire, value] of counted(message, found)) {
    if (kind === 'sparse' && number === SPARSE_SIZES) sizes.take(value);
    else if (wire === BYTES && Object.hasOwn(nested, number)) {
      const place = `${kind} ${number}`;
      if (ONCE.has(place) && seen.has(place)) refuse('a tensor in two parts', found.where, 'each tensor once');
      seen.add(place);
      below.push([nested[number], value]);
    } else if (wire === BYTES) {
      // The last one counts. A field of another wire type than its own is unknown to a parser: it must not replace a
      // text here that the parser keeps.
      texts.set(number, value);
    }
  }
  take(kind, texts, found);
  found.sparseElements += kind === 'sparse' ? sizes.elements : 0;
  if (found.sparseElements > MAX_SPARSE_ELEMENTS) refuse('sparse tensors without end', found.where, `at most ${MAX_SPARSE_ELEMENTS} elements in all`);
  return below;
}

function* counted(message, found) {
  for (const each of fields(message, found.where)) {
    found.fields += 1;
    if (found.fields > MAX_FIELDS) refuse(`more than ${MAX_FIELDS} fields`, found.where, `at most ${MAX_FIELDS} fields`);
    yield each;
  }
}

function takeTensor(message, found) {
  found.tensors += 1;
  if (found.tensors > MAX_TENSORS) refuse(`more than ${MAX_TENSORS} tensors`, found.where, `at most ${MAX_TENSORS} tensors`);
  const tensor = new Tensor(found.where);
  for (const field of counted(message, found)) tensor.take(...field);
  tensor.check();
}

function take(kind, texts, found) {
  const { where } = found;
  if (Object.hasOwn(DOMAIN_FIELD, kind)) {
    const domain = text(texts.get(DOMAIN_FIELD[kind]));
    if (!DOMAINS.has(domain)) {
      refuse(`operator domain ${JSON.stringify(domain)}`, where, `one of ${[...DOMAINS].slice(1).join(', ')}`);
    }
  }
  if (kind === 'graph') found.graphs += 1;
  if (kind === 'opset') found.opsets += 1;
  if (kind === 'model' && texts.has(MODEL_FUNCTION)) {
    refuse('functions of its own', where, 'operators written out: functions can call each other');
  }
  if (kind === 'property' && text(texts.get(PROPERTY_KEY)) === SETTINGS_KEY) {
    refuse('session settings in the metadata', where, "settings are the application's");
  }
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
