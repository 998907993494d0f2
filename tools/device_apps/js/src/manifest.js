/** `edgekit/bundle.json`: what a bundle says about itself. Format `edgekit-bundle`, version 1.0. */

import { exactly, isNumber, refuse, typed } from './fields.js';
import { postprocessingFrom, preprocessingFrom } from './processing/kinds.js';
import { DTYPES, count } from './tensor.js';

export const BUNDLE_FILE = 'edgekit/bundle.json';
export const GOLDEN_FILE = 'edgekit/golden.npz';
export const PACKAGE_FILE = 'manifest.json';
export const COMPONENT_FILE = 'models/model/component.json';
export const MAX_FILES = 1000;
const FORMAT = 'edgekit-bundle', MAJOR = 1, MINOR = 0;
const MODELS = 'models/model';
/** Protocol buffers end there, and so does an ONNX file that holds its own weights. */
const MAX_FILE_BYTES = 2 ** 31 - 1;

/** Of an input or output. */
const MAX_ELEMENTS = 2 ** 28;

/** The names people type, and ONNX Runtime's. */
export const PROVIDERS = { cpu: 'CPUExecutionProvider', cuda: 'CUDAExecutionProvider', tensorrt: 'TensorrtExecutionProvider' };
const TARGETS = ['any', 'x86-vnni', 'x86-avx2', 'arm64', 'cuda', 'tensorrt'];

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
const PART = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$/;
const SHA256 = /^[0-9a-f]{64}$/;
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/;

const KEYS = {
  format: 'text', version: 'text', name: 'text', created: 'text', io: 'object', labels: 'list', postprocessing: 'object?',
  preprocessing: 'object?', metrics: 'object', provenance: 'object', variants: 'list', golden_samples: 'integer',
  files: 'object',
};
const VARIANT_KEYS = {
  name: 'text', provider: 'text', precision: 'text', target: 'text', tolerance: 'object', tolerance_from: 'text',
  file: 'text',
};

/**
 * The manifest in a parsed `bundle.json`, checked. A bundle of a newer minor version is read with a warning, and what it
 * adds is ignored.
 *
 * @param {Record<string, any>} data
 * @param {(text: string) => void} warn
 * @returns {import('./index.js').Manifest}
 * @throws {BundleError} another format or major version, or a value that is not what it must be; the text says where
 */
export function readManifest(data, warn, where = BUNDLE_FILE) {
  const newer = checkVersion(data, where, warn);
  const row = typed(data, KEYS, where, !newer);
  const length = [...row.name].length;
  if (length < 1 || length > 200) refuse(`a name of ${length} characters`, `${where}.name`, '1 to 200 characters');
  if (!TIME.test(row.created) || Number.isNaN(Date.parse(row.created))) {
    refuse(`got ${JSON.stringify(row.created)}`, `${where}.created`, 'a time such as 2026-01-31T12:00:00+00:00');
  }
  if (!row.labels.every((label) => typeof label === 'string')) refuse('a label is no text', `${where}.labels`, 'a list of texts');
  if (row.golden_samples < 0 || row.golden_samples > 1000) refuse(`got ${row.golden_samples}`, `${where}.golden_samples`, '0 to 1000');
  const files = readFiles(row.files, where);
  const variants = row.variants.map((variant, index) => readVariant(variant, `${where}.variants[${index}]`));
  const io = readIo(row.io, where);
  const preprocessing = row.preprocessing && preprocessingFrom(row.preprocessing, `${where}.preprocessing`);
  const postprocessing = row.postprocessing && postprocessingFrom(row.postprocessing, `${where}.postprocessing`);
  checkProcessing({ preprocessing, postprocessing, io, labels: row.labels, files }, where);
  checkVariants(variants, files, io, row.golden_samples > 0, where);
  return {
    name: row.name, created: row.created, io, labels: row.labels, preprocessing, postprocessing, metrics: row.metrics,
    provenance: row.provenance, variants, goldenSamples: row.golden_samples, files,
  };
}

/** What ONNX Runtime's own two files must hold for this bundle. */
export function packageFiles(manifest, version) {
  const about = { format: FORMAT, version, file: BUNDLE_FILE, name: manifest.name };
  return {
    [PACKAGE_FILE]: { schema_version: '1.0', components: { model: MODELS }, additional_metadata: { edgekit: about } },
    [COMPONENT_FILE]: {
      component_name: 'model',
      variants: Object.fromEntries(manifest.variants.map((variant) => [
        variant.name,
        { ep: PROVIDERS[variant.provider], executor_info: { ort: { model_file: 'model.onnx' } } },
      ])),
    },
  };
}

/** The file of the vocabulary that a bundle's processing needs; null where it needs none. */
export function vocabularyFile(manifest) {
  return manifest.preprocessing?.vocabulary ?? manifest.postprocessing?.vocabulary ?? null;
}

/** Refuse a path that could leave the bundle, or that some file system reads differently. */
export function checkPath(path, where) {
  const parts = path.split('/');
  if (path.length > 240 || parts.length > 8 || !parts.every((part) => PART.test(part))) {
    refuse(`path ${JSON.stringify(path)}`, where, "a relative path; its parts are letters, digits, '.', '_' and '-', and none begins with '.'");
  }
}

/** Whether the bundle is of a newer minor version. */
function checkVersion(data, where, warn) {
  if (data.format !== FORMAT) refuse(`got ${JSON.stringify(data.format)}`, `${where}.format`, `'${FORMAT}'`);
  const found = typeof data.version === 'string' && /^(\d{1,4})\.(\d{1,4})$/.exec(data.version);
  if (!found) refuse(`got ${JSON.stringify(data.version)}`, `${where}.version`, 'major.minor');
  if (found[1] !== String(MAJOR)) {
    refuse(`version ${data.version}`, `${where}.version`, `this edgekit reads ${MAJOR}.x`, 'install the edgekit that wrote the bundle, or write it again with this one');
  }
  const newer = Number(found[2]) > MINOR;
  if (newer) warn(`${where}: version ${data.version} is newer than ${MAJOR}.${MINOR}; what it adds is ignored`);
  return newer;
}

function readFiles(data, where) {
  const paths = Object.keys(data);
  if (paths.length > MAX_FILES) refuse(`${paths.length} files`, `${where}.files`, `at most ${MAX_FILES}`);
  const files = new Map();
  for (const path of paths) {
    const place = `${where}.files['${path}']`;
    checkPath(path, place);
    const entry = typed(data[path], { sha256: 'text', size: 'integer' }, place);
    if (!SHA256.test(entry.sha256)) refuse(`got ${JSON.stringify(entry.sha256)}`, `${place}.sha256`, '64 hexadecimal digits in lower case');
    if (entry.size < 0 || entry.size > MAX_FILE_BYTES) refuse(`got ${entry.size}`, `${place}.size`, `0 to ${MAX_FILE_BYTES} bytes`);
    files.set(path, entry);
  }
  if (files.has(BUNDLE_FILE)) refuse(`${BUNDLE_FILE} lists itself`, `${where}.files`, 'every other file');
  if (new Set(paths.map((path) => path.toLowerCase())).size !== paths.length) {
    refuse('two paths differ only in case', `${where}.files`, 'paths that every file system tells apart');
  }
  return files;
}

function readVariant(data, where) {
  const row = typed(data, VARIANT_KEYS, where);
  for (const key of ['name', 'precision']) {
    if (!NAME.test(row[key])) refuse(`got ${JSON.stringify(row[key])}`, `${where}.${key}`, "letters, digits, '.', '_' and '-', 64 at most");
  }
  const choices = { provider: Object.keys(PROVIDERS), target: TARGETS, tolerance_from: ['measured', 'assumed'] };
  for (const [key, allowed] of Object.entries(choices)) {
    if (!allowed.includes(row[key])) refuse(`got ${JSON.stringify(row[key])}`, `${where}.${key}`, `one of ${allowed.join(', ')}`);
  }
  for (const [output, value] of Object.entries(row.tolerance)) {
    if (!isNumber(value, 0, Infinity)) refuse(`got ${JSON.stringify(value)}`, `${where}.tolerance['${output}']`, 'a number from 0 up');
  }
  const file = `${MODELS}/${row.name}/model.onnx`;
  if (row.file !== file) refuse(`got ${JSON.stringify(row.file)}`, `${where}.file`, file);
  return {
    name: row.name, provider: row.provider, precision: row.precision, target: row.target, tolerance: row.tolerance,
    toleranceFrom: row.tolerance_from, file, toString: () => `${row.name} (${row.precision}, ${row.provider}, for ${row.target})`,
  };
}

function readIo(data, where) {
  const io = {};
  for (const side of ['inputs', 'outputs']) {
    const rows = data[side];
    if (!Array.isArray(rows)) refuse('no list', `${where}.io.${side}`, 'expected a list of tensors');
    io[side] = rows.map((row, index) => readTensor(row, `${where}.io.${side}[${index}]`));
    const names = io[side].map((tensor) => tensor.name);
    if (!names.length || new Set(names).size !== names.length) {
      refuse(`got ${JSON.stringify(names)}`, `${where}.io.${side}`, 'at least one tensor, each with its own name');
    }
  }
  return io;
}

function readTensor(data, where) {
  const row = exactly(data, ['name', 'dtype', 'shape'], where, false);
  if (typeof row.name !== 'string') refuse(`got ${JSON.stringify(row.name)}`, `${where}.name`, 'expected a text');
  if (!DTYPES.has(row.dtype)) refuse(`got ${JSON.stringify(row.dtype)}`, `${where}.dtype`, `one of ${[...DTYPES.keys()].join(', ')}`);
  const isSize = (size) => typeof size === 'string' || (Number.isInteger(size) && size >= 0);
  if (!Array.isArray(row.shape) || !row.shape.every(isSize)) refuse(`got ${JSON.stringify(row.shape)}`, `${where}.shape`, "sizes or dimensions' names");
  if (count(row.shape.filter(Number.isInteger)) > MAX_ELEMENTS) refuse(`got [${row.shape.join(', ')}]`, `${where}.shape`, `at most ${MAX_ELEMENTS} elements, open sizes aside`);
  return row;
}

function checkProcessing({ preprocessing, postprocessing, io, labels, files }, where) {
  const inputs = io.inputs.map((tensor) => tensor.name).sort(), outputs = io.outputs.map((tensor) => tensor.name);
  if (preprocessing?.kind === 'wordpiece') {
    const found = Object.values(preprocessing.inputs).filter((name) => name !== null).sort();
    if (found.length !== inputs.length || found.some((name, index) => name !== inputs[index])) {
      refuse(`got ${found.join(', ')}`, `${where}.preprocessing.inputs`, `the names of all inputs, ${inputs.join(', ')}`);
    }
  } else if (preprocessing && inputs.length !== 1) {
    refuse(`${inputs.length} inputs`, `${where}.preprocessing`, `one input for the kind ${preprocessing.kind}`);
  }
  for (const key of postprocessing === null ? [] : postprocessing.kind === 'detection' ? ['boxes', 'scores'] : ['output']) {
    if (!outputs.includes(postprocessing[key])) {
      refuse(`got ${JSON.stringify(postprocessing[key])}`, `${where}.postprocessing.${key}`, `the name of an output, of ${outputs.join(', ')}`);
    }
  }
  if (postprocessing?.kind === 'classification' && !labels.length) {
    refuse('no labels', `${where}.labels`, 'a label for each class, for the postprocessing classification');
  }
  const vocabularies = [preprocessing, postprocessing].map((each) => each?.vocabulary).filter((name) => name !== undefined);
  if (new Set(vocabularies).size > 1) refuse(`got ${vocabularies.join(', ')}`, 'vocabulary', 'one for both sides of the model');
  for (const name of vocabularies) {
    if (!files.has(name)) refuse(`${name} is not listed`, `${where}.files`, 'every file of the bundle, the vocabulary too');
  }
}

function checkVariants(variants, files, io, golden, where) {
  if (!variants.length) refuse('no variant', `${where}.variants`, 'at least one');
  if (new Set(variants.map((variant) => variant.name.toLowerCase())).size !== variants.length) {
    refuse('two variants of one name', `${where}.variants`, 'names that differ in more than case');
  }
  const needed = [PACKAGE_FILE, COMPONENT_FILE, ...variants.map((variant) => variant.file), ...(golden ? [GOLDEN_FILE] : [])];
  for (const path of needed.sort()) {
    if (!files.has(path)) refuse(`${path} is not listed`, `${where}.files`, 'every file of the bundle');
  }
  const outputs = golden ? io.outputs.map((tensor) => tensor.name).sort() : [];
  variants.forEach((variant, index) => {
    const found = Object.keys(variant.tolerance).sort();
    if (found.length !== outputs.length || found.some((name, i) => name !== outputs[i])) {
      refuse(`got ${found.join(', ')}`, `${where}.variants[${index}].tolerance`, golden ? 'one number for each output' : 'empty without golden vectors');
    }
  });
}
