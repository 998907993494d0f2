/** A bundle, loaded: predicts from raw input. */

import { defaultRuntime } from '#runtime';
import { BundleError, DataError } from './errors.js';
import { readGolden } from './golden.js';
import { GOLDEN_FILE, vocabularyFile } from './manifest.js';
import { scan } from './onnx-scan.js';
import { classify } from './processing/classification.js';
import { detect } from './processing/detection.js';
import { geometry } from './processing/geometry.js';
import { pixels, prepareImage } from './processing/image.js';
import { prepareLogMel } from './processing/log-mel.js';
import { prepareWaveform } from './processing/waveform.js';
import { textOf } from './processing/text.js';
import { readVocabulary } from './processing/vocabulary.js';
import { checkVocabulary, prepareWordpiece } from './processing/wordpiece.js';
import { describeRuntime, openSession } from './session.js';
import { accepts, count, maxDifference, numbers, tensor } from './tensor.js';
import { checkSignature } from './signature.js';
import { rank } from './variants.js';
import { openBundle } from './verify.js';

/**
 * Load a bundle: verify it, choose the variant that suits this machine, open it in ONNX Runtime, which is handed bytes
 * whose digest was checked, never a path.
 *
 * @param {any} source the address, the bytes or the file of a NAME.edgekit.zip, a folder's path (in Node), or the files
 *   of a folder that a user chose
 * @param {import('./index.js').LoadOptions} [options]
 * @returns {Promise<Model>}
 * @throws {BundleError} the bundle is not whole, not ours, or not safe; the text says which file and why
 * @throws {ProviderError} ONNX Runtime is absent, or the bundle has no variant for it
 */
export async function load(source, options = {}) {
  const { provider = null, digest = null, publicKey = null, signature = null, runtime = null, threads = 1, warn = console.warn } = options;
  const opened = await openBundle(source, warn), { manifest } = opened;
  if (digest !== null && digest !== opened.digest) {
    throw new BundleError(`another bundle: its digest is ${opened.digest}`, { where: opened.source.name, rule: `expected ${digest}` });
  }
  if (publicKey !== null) await checkSignature(opened, publicKey, signature);
  else if (signature !== null) throw new BundleError('a signature, but no key', { where: 'load', rule: 'a signature says nothing without publicKey' });
  await opened.checkDigests();
  const golden = manifest.goldenSamples ? readGolden(await opened.read(GOLDEN_FILE), manifest) : [];
  const file = vocabularyFile(manifest), vocabulary = file === null ? null : readVocabulary(await opened.read(file), file);
  if (manifest.preprocessing?.kind === 'wordpiece') checkVocabulary(manifest.preprocessing, vocabulary, `${manifest.name}: preprocessing`);
  const ort = await (runtime ?? defaultRuntime()), { name, isa } = describeRuntime(ort);
  const choices = rank(manifest.variants, { provider, isa, proof: golden.length > 0 });
  const parts = { manifest, digest: opened.digest, ort, threads, golden, vocabulary, runtime: name };
  const open = async (choice) => {
    const path = choice.variant.file, data = await opened.read(path), where = `${opened.source.name}/${path}`;
    scan(data, where);
    const session = await openSession(ort, data, { threads, config: choice.config, where, io: manifest.io });
    return new Model({ ...parts, choice, session, notes: [] });
  };
  const model = await (isa === 'wasm' ? openProven(choices, open, golden.length > 0) : open(choices[0]));
  for (const note of model.notes) warn(note);
  if (model.choice.compromise) warn(`${model.variant}: ${model.choice.compromise}`);
  return model;
}

/** The first variant whose golden vectors hold; the first of all, as a compromise, where none does or there are none. */
async function openProven(choices, open, proof) {
  const notes = [];
  for (const choice of proof ? choices : []) {
    const model = await open(choice);
    try {
      const { samples } = await model.check();
      const proven = { ...choice, reason: `${choice.reason}; here it reproduces all ${samples} golden vectors` };
      return new Model({ ...model.parts, choice: proven, notes });
    } catch (error) {
      if (!(error instanceof BundleError)) throw error;
      notes.push(`passed over ${choice.variant}: ${error.problem}`);
      await model.close();
    }
  }
  const unproven = proof ? 'no variant reproduces the golden vectors here: its outputs differ' : 'no golden vectors prove its outputs in WebAssembly';
  const model = await open({ ...choices[0], compromise: proof || choices[0].variant.target !== 'any' ? unproven : '' });
  return new Model({ ...model.parts, notes });
}

/** A model that is ready to run; `load` makes it. */
export class Model {
  constructor(parts) {
    this.parts = parts;
    /** What the bundle says about itself. */
    this.manifest = parts.manifest;
    /** SHA-256 of `edgekit/bundle.json`, which holds the digests of all files: the bundle's identity. */
    this.digest = parts.digest;
    /** The variant that runs, and why. */
    this.choice = parts.choice;
    /** What became of variants that were preferred to it. */
    this.notes = parts.notes;
  }

  get name() {
    return this.manifest.name;
  }

  /** Names of the classes, by index. */
  get labels() {
    return this.manifest.labels;
  }

  /** The file that runs. */
  get variant() {
    return this.choice.variant;
  }

  /** Which variant runs, why, and what is wrong with that, in lines. */
  explain() {
    const { runtime, threads } = this.parts, { reason, compromise } = this.choice;
    const lines = [`${this.variant} runs on ${runtime} with ${threads} thread(s): ${reason}`];
    return [...lines, ...(compromise ? [`compromise: ${compromise}`] : []), ...this.notes].join('\n');
  }

  /**
   * Outputs by name, for inputs by name as `manifest.io` has them.
   *
   * @param {Record<string, any>} feeds tensors `{dtype, shape, data}`, or ONNX Runtime's own
   * @returns {Promise<Record<string, import('./index.js').Tensor>>}
   * @throws {DataError} the inputs are not these tensors
   */
  async run(feeds) {
    const { ort, session } = this.parts, { inputs, outputs } = this.manifest.io, names = inputs.map((spec) => spec.name);
    const given = Object.keys(feeds);
    if (given.length !== names.length || !names.every((name) => given.includes(name))) {
      throw new DataError(`got inputs ${given.join(', ')}`, { where: 'feeds', rule: `expected ${names.join(', ')}` });
    }
    const ready = Object.fromEntries(inputs.map((spec) => {
      const { dtype, shape, data } = tensor(feeds[spec.name], spec);
      return [spec.name, new ort.Tensor(dtype, data, shape)];
    }));
    const found = await session.run(ready);
    return Object.fromEntries(outputs.map((spec) => [spec.name, tensor(found[spec.name], spec)]));
  }

  /**
   * Predict from raw input.
   *
   * @param {any} raw what the bundle's preprocessing takes: an image (ImageData, or `{data, width, height}`), samples of a
   *   recording (Float32Array in [-1, 1], Int16Array), a text; or the values or the prepared tensor of a model with one
   *   input; or tensors by name
   * @returns {Promise<import('./index.js').Answer>} by the kind of postprocessing: a prediction (a list of them for a batch
   *   of several), a list of detections, the surest first, or a text; without postprocessing, outputs by name
   * @throws {DataError} the input is none of these, or does not fit the model
   */
  async predict(raw) {
    const { feeds, image } = this.prepare(raw), outputs = await this.run(feeds), how = this.manifest.postprocessing;
    if (how === null) return outputs;
    if (how.kind === 'text') return textOf(outputs, how, this.parts.vocabulary);
    if (how.kind === 'classification') {
      const made = classify(outputs, this.labels, how);
      return made.length === 1 ? made[0] : made;
    }
    const size = this.inputSize(feeds);
    const seen = image ? { size, image, placed: geometry(...image, this.manifest.preprocessing) } : { size, image: size, placed: null };
    return detect(outputs, this.labels, how, seen);
  }

  /** The inputs by name that `predict` makes from `raw`, and height and width of the image if it is one. */
  prepare(raw) {
    const { inputs } = this.manifest.io, how = this.manifest.preprocessing, [spec] = inputs;
    if (isFeeds(raw, inputs)) return { feeds: raw, image: null };
    if (how?.kind === 'wordpiece') return { feeds: prepareWordpiece(raw, how, this.parts.vocabulary), image: null };
    if (inputs.length !== 1) {
      throw new DataError('got one input', {
        where: 'predict', rule: `inputs ${inputs.map(({ name }) => name).join(', ')}`, wayOut: 'give an object of tensors by name',
      });
    }
    const shaped = prepared(raw, spec);
    if (shaped) return { feeds: { [spec.name]: shaped }, image: null };
    const listen = { log_mel: prepareLogMel, waveform: prepareWaveform }[how?.kind];
    if (listen) return { feeds: { [spec.name]: listen(ArrayBuffer.isView(raw) ? raw : raw?.data, how) }, image: null };
    if (how?.kind === 'image') {
      const image = pixels(raw);
      return { feeds: { [spec.name]: prepareImage(image, how) }, image: [image.height, image.width] };
    }
    const value = takesPixels(spec) ? asTensor(pixels(raw)) : ArrayBuffer.isView(raw) ? shapedLike(raw, spec) : raw;
    return { feeds: { [spec.name]: tensor(value, spec) }, image: null };
  }

  /** Height and width of the image that the model itself sees. */
  inputSize(feeds) {
    if (this.manifest.preprocessing?.kind === 'image') return this.manifest.preprocessing.size;
    const given = feeds[this.manifest.io.inputs[0].name], shape = Array.from(given.shape ?? given.dims);
    if (shape.length !== 3 && shape.length !== 4) {
      throw new BundleError(`an input [${shape}]`, { where: this.name, rule: 'boxes need a model that sees an image' });
    }
    // [height, width, channels] is what a bundle with its preprocessing in the graph takes.
    const first = shape.length === 4 && (shape[1] === 1 || shape[1] === 3) ? 2 : shape.length - 3;
    return shape.slice(first, first + 2);
  }

  /** The golden vectors; none where the bundle has none. */
  golden() {
    return this.parts.golden;
  }

  /**
   * Replay the golden vectors: preprocessing and outputs must come out as when the bundle was made.
   *
   * @returns {Promise<import('./index.js').Check>}
   * @throws {BundleError} there are none, or one comes out differently; the text has the largest difference
   */
  async check() {
    const { golden } = this.parts, differences = {}, tolerances = this.variant.tolerance;
    if (!golden.length) throw new BundleError('no golden vectors', { where: this.name, rule: 'a bundle that can be checked' });
    for (const [index, sample] of golden.entries()) {
      if (sample.raw !== null) this.checkPreprocessing(sample, index);
      const outputs = await this.run(sample.inputs);
      for (const [name, expected] of Object.entries(sample.outputs)) {
        const found = maxDifference(outputs[name], expected);
        if (!(found <= tolerances[name])) {
          throw new BundleError(`output '${name}' of golden sample ${index} differs by ${found.toPrecision(6)}`, {
            where: `${this.name}, variant ${this.variant}`,
            rule: `at most ${tolerances[name].toPrecision(6)}, measured when the bundle was made`,
            wayOut: `this machine computes another result: ${this.choice.compromise || 'try another variant'}`,
          });
        }
        differences[name] = Math.max(differences[name] ?? 0, found);
      }
    }
    return { samples: golden.length, differences, tolerances };
  }

  checkPreprocessing(sample, index) {
    const how = this.manifest.preprocessing;
    if (how === null) throw new BundleError(`golden sample ${index} has raw input`, { where: this.name, rule: 'raw input needs preprocessing' });
    const { feeds } = this.prepare(sample.raw);
    let found = 0, allowed = 1e-5;
    for (const [name, expected] of Object.entries(sample.inputs)) {
      found = Math.max(found, maxDifference(feeds[name], expected));
      allowed = numbers(expected).reduce((most, value) => Math.max(most, 1e-5 * Math.abs(value)), allowed);
    }
    if (!(found <= allowed)) {
      throw new BundleError(`the preprocessed ${how.kind} of golden sample ${index} differs by ${found.toPrecision(6)}`, {
        where: this.name, rule: `at most ${allowed.toPrecision(6)}`,
      });
    }
  }

  /** Free what the session holds. */
  async close() {
    await this.parts.session.release();
  }
}

function isFeeds(raw, inputs) {
  const plain = typeof raw === 'object' && raw !== null && !ArrayBuffer.isView(raw) && !('data' in raw);
  return plain && inputs.some(({ name }) => Object.hasOwn(raw, name));
}

/** `raw` as the one input, where it is a tensor that fits, with or without its batch dimension; else null. */
function prepared(raw, spec) {
  const { dtype = spec.dtype, data } = { dtype: raw?.dtype ?? raw?.type, data: raw?.data }, shape = raw?.shape ?? raw?.dims;
  if (!shape) return null;
  const sizes = Array.from(shape, Number), options = [sizes, [1, ...sizes]].map((each) => ({ dtype, shape: each, data }));
  return options.find((each) => accepts(each, spec)) ?? null;
}

/** Bare values in the shape of the one input, of which one size may be open, as the batch is. */
function shapedLike(raw, spec) {
  const known = count(spec.shape.filter((size) => typeof size === 'number'));
  const isOpen = spec.shape.filter((size) => typeof size === 'string').length === 1;
  return { dtype: spec.dtype, shape: spec.shape.map((size) => (typeof size === 'string' && isOpen ? raw.length / known : size)), data: raw };
}

/** Whether an input is an image as it is: uint8 [height, width, 3]. */
function takesPixels({ dtype, shape }) {
  return dtype === 'uint8' && shape.length === 3 && shape[2] === 3;
}

function asTensor({ height, width, channels, data }) {
  if (channels !== 3) throw new DataError('got a grey image', { where: 'image', rule: 'three bytes for each pixel' });
  return { dtype: 'uint8', shape: [height, width, 3], data: new Uint8Array(data) };
}
