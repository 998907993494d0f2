/** What WebAssembly makes of a quantized product at the ends of its range: `node saturation.mjs MODEL.onnx`. */

import { readFileSync } from 'node:fs';
import * as ort from 'onnxruntime-web/wasm';

ort.env.wasm.numThreads = 1;
const session = await ort.InferenceSession.create(new Uint8Array(readFileSync(process.argv[2])), { executionProviders: ['wasm'] });
const { y } = await session.run({ x: new ort.Tensor('float32', new Float32Array(64).fill(255), [1, 64]) });
console.log(JSON.stringify(Array.from(y.data)));
