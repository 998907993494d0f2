/** Loads bundles and predicts as a request says, and prints what came out as JSON: `node drive.mjs REQUEST.json`.
 *
 * A request is a list of {bundle, bytes, runtime, options, check, inputs}; an input is a text, or {npy, as}, where `as`
 * says how the array is handed in: image, samples or tensor. */

import { readFileSync } from 'node:fs';
import { EdgekitError, load, readNpy } from './src/index.js';

const RUNTIMES = { web: () => import('onnxruntime-web/wasm'), node: () => import('onnxruntime-node') };

function given(input) {
  if (typeof input === 'string') return input;
  const array = readNpy(new Uint8Array(readFileSync(input.npy)), input.npy);
  const [height, width] = array.shape;
  return { image: { height, width, data: array.data }, samples: array.data, tensor: array }[input.as];
}

async function answer({ bundle, bytes = false, runtime, options = {}, check = false, inputs = [] }) {
  const warnings = [];
  try {
    const source = bytes ? new Uint8Array(readFileSync(bundle)) : bundle;
    const model = await load(source, { runtime: await RUNTIMES[runtime](), warn: (text) => warnings.push(text), ...options });
    const answers = [];
    for (const input of inputs) answers.push(await model.predict(given(input)));
    const checked = check ? await model.check() : null;
    const { digest, variant, choice } = model;
    await model.close();
    return { digest, variant: variant.name, reason: choice.reason, compromise: choice.compromise, explained: model.explain(), checked, answers, warnings };
  } catch (error) {
    const { name, problem, where, rule, wayOut } = error;
    return { error: error instanceof EdgekitError ? { name, problem, where, rule, wayOut } : { name: 'unforeseen', problem: error.stack }, warnings };
  }
}

const results = [];
for (const each of JSON.parse(readFileSync(process.argv[2], 'utf8'))) results.push(await answer(each));
console.log(JSON.stringify(results, (_, value) => (ArrayBuffer.isView(value) ? Array.from(value, Number) : value)));
