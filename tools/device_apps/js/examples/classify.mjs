#!/usr/bin/env node
/** Predict from files with an edgekit bundle.
 *
 *     node classify.mjs BUNDLE INPUT... [--check] [--json] [--explain] [--digest SHA256] [--key PUBLIC.pem]
 *         [--runtime web|node]
 *
 * BUNDLE is a bundle's folder, its NAME.edgekit.zip, or the address of one. An INPUT is what the bundle takes: an image
 * (PNG, JPEG, PPM, PGM), a recording (WAV), a text in quotes or a .txt file, or a prepared tensor (.npy).
 *
 *     --check      replay the bundle's golden vectors first; exit code 1 if one comes out differently
 *     --explain    say which variant of the model runs here, and why
 *     --json       one JSON object for each input, and nothing else, on standard output
 *     --digest     refuse another bundle than the one with this digest
 *     --key        refuse a bundle that is not signed with this key; its signature lies beside it (NAME.edgekit.sig)
 *     --runtime    node: native, web: WebAssembly; by default the native one where it is installed */

import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { EdgekitError, load } from 'edgekit';
import { readInput } from './inputs.mjs';

const OPTIONS = {
  check: { type: 'boolean' }, explain: { type: 'boolean' }, json: { type: 'boolean' }, help: { type: 'boolean', short: 'h' },
  digest: { type: 'string' }, key: { type: 'string' }, runtime: { type: 'string' },
};
const USAGE = 'node classify.mjs BUNDLE INPUT... [--check] [--json] [--explain] [--digest SHA256] [--key PUBLIC.pem] [--runtime web|node]';

/** What a prediction says in one line. */
function line(answer) {
  const percent = (confidence) => `${(100 * confidence).toFixed(1)}%`;
  if (typeof answer === 'string') return answer;
  if (Array.isArray(answer) && answer[0]?.top) return answer.map(line).join('; ');
  if (Array.isArray(answer)) {
    return answer.map((each) => `${each.label} (${percent(each.confidence)}) at ${each.box.map((side) => side.toFixed(1)).join(', ')}`).join('; ') || 'nothing found';
  }
  if (answer.top) return answer.top.map(({ label, confidence }) => `${label} (${percent(confidence)})`).join(', ');
  return Object.entries(answer).map(([name, { dtype, shape }]) => `${name}: ${dtype} [${shape}]`).join(', ');
}

/** The answer as JSON has it: tensors as their values. */
function plain(answer) {
  const values = ({ data }) => Array.from(data, Number);
  const isOutputs = typeof answer === 'object' && !Array.isArray(answer) && !answer.top;
  return isOutputs ? Object.fromEntries(Object.entries(answer).map(([name, tensor]) => [name, values(tensor)])) : answer;
}

async function main() {
  const { values: options, positionals: [bundle, ...inputs] } = parseArgs({ options: OPTIONS, allowPositionals: true });
  if (options.help || bundle === undefined) {
    console.log(USAGE);
    return options.help ? 0 : 2;
  }
  const runtime = options.runtime ? await import(options.runtime === 'node' ? 'onnxruntime-node' : 'onnxruntime-web/wasm') : null;
  const publicKey = options.key === undefined ? null : readFileSync(options.key, 'utf8');
  const model = await load(bundle, { digest: options.digest ?? null, publicKey, runtime, warn: (text) => console.error(`warning: ${text}`) });
  const say = options.json ? console.error : console.log;
  if (options.explain) say(model.explain());
  if (options.check) {
    const { samples, differences } = await model.check();
    const all = Object.entries(differences).map(([name, found]) => `${name} within ${found.toPrecision(3)}`);
    say(`golden vectors: ${samples} of ${samples} come out as they should (${all.join(', ')})`);
  }
  for (const input of inputs) {
    const raw = await readInput(input, model.manifest), start = performance.now();
    const answer = await model.predict(raw), ms = performance.now() - start;
    if (options.json) console.log(JSON.stringify({ input, answer: plain(answer), ms }));
    else console.log(`${input}: ${line(answer)}  [${ms.toFixed(2)} ms]`);
  }
  return 0;
}

try {
  process.exitCode = await main();
} catch (error) {
  const ours = error instanceof EdgekitError || String(error.code).startsWith('ERR_PARSE_ARGS');
  console.error(`error: ${ours ? error.message : error.stack}`);
  process.exitCode = ours ? 1 : 3;
}
