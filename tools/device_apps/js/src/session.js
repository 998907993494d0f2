/** Opening a model in ONNX Runtime, whichever of its two packages for JavaScript there is. */

import { nativeIsa } from '#runtime';
import { BundleError, ProviderError } from './errors.js';

/** What ONNX Runtime's package is: its name, the processor that its kernels see, and its provider. */
export function describeRuntime(ort) {
  if (typeof ort?.InferenceSession?.create !== 'function' || typeof ort?.Tensor !== 'function') {
    throw new ProviderError('got no ONNX Runtime', { where: 'runtime', rule: 'the module onnxruntime-web or onnxruntime-node' });
  }
  const native = typeof ort.listSupportedBackends === 'function';
  return native ? { name: 'onnxruntime-node', isa: nativeIsa(), provider: 'cpu' } : { name: 'onnxruntime-web', isa: 'wasm', provider: 'wasm' };
}

/**
 * A session on one provider, with a fixed number of threads.
 *
 * @param {any} ort ONNX Runtime
 * @param {Uint8Array} data the model's bytes
 * @param {{threads: number, config: Record<string, string>, where: string, io: import('./index.js').Io}} options
 * @throws {BundleError} ONNX Runtime refuses the model, or its inputs and outputs are not the bundle's
 */
export async function openSession(ort, data, { threads, config, where, io }) {
  const { name, provider } = describeRuntime(ort);
  ort.env.logLevel = 'error';
  // More threads need SharedArrayBuffer, which browsers give to isolated pages only.
  if (name === 'onnxruntime-web') ort.env.wasm.numThreads = threads;
  let session;
  try {
    session = await ort.InferenceSession.create(data, {
      executionProviders: [provider], intraOpNumThreads: threads, interOpNumThreads: 1, executionMode: 'sequential',
      logSeverityLevel: 3, extra: { session: config },
    });
  } catch (cause) {
    throw new BundleError(`ONNX Runtime refuses the model: ${cause.message ?? cause}`, {
      where, rule: 'an ONNX model that this ONNX Runtime runs', wayOut: "update onnxruntime; the bundle's provenance says which version made it", cause,
    });
  }
  for (const [side, found] of [['inputs', session.inputNames], ['outputs', session.outputNames]]) {
    const wanted = io[side].map((tensor) => tensor.name);
    if (found.length !== wanted.length || found.some((each, index) => each !== wanted[index])) {
      throw new BundleError(`${side} ${found.join(', ')}`, { where, rule: `${wanted.join(', ')} as in edgekit/bundle.json` });
    }
  }
  return session;
}
