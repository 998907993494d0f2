/** ONNX Runtime in a browser. */

import { ProviderError } from './errors.js';

/** The `onnxruntime-web` of the page. */
export async function defaultRuntime() {
  try {
    return await import('onnxruntime-web/wasm');
  } catch (cause) {
    throw new ProviderError(`onnxruntime-web cannot be imported: ${cause.message}`, {
      where: 'this page', rule: 'a bundle runs on onnxruntime-web', wayOut: 'npm install onnxruntime-web', cause,
    });
  }
}

/** Which int8 file suits this processor. */
export function nativeIsa() {
  return 'unknown';
}
