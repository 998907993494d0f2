/** Which of a bundle's files runs here, and why. */

import { ProviderError } from './errors.js';
import { PROVIDERS } from './manifest.js';

const RUNS = {
  // VNNI instructions are on top of AVX2; the AVX2 file is right there too, only less precise.
  'x86-vnni': ['x86-vnni', 'x86-avx2', 'any'],
  'x86-avx2': ['x86-avx2', 'any'],
  arm64: ['arm64', 'any'],
};
const SATURATES = ['x86-avx2', 'x86'];

/**
 * The variants that can run here, best first: those made for this processor in the bundle's order, which is its author's
 * preference, then as compromises those for another, float before int8.
 *
 * No file is made for WebAssembly. Its int8 kernels add in 32 bits, so that files for any processor should be right
 * there; and int8 is faster than float there too. So they keep the bundle's order where golden vectors can prove it
 * (`load` does), and else float comes first.
 *
 * @param {import('./index.js').Variant[]} variants
 * @param {{provider: string | null, isa: string, proof: boolean}} here `isa` is this processor, or `wasm`
 * @returns {import('./index.js').Choice[]}
 * @throws {ProviderError} the provider is unknown or absent, or the bundle has nothing for it
 */
export function rank(variants, { provider, isa, proof }) {
  if (provider !== null && !Object.hasOwn(PROVIDERS, provider)) {
    throw new ProviderError(`unknown provider '${provider}'`, { where: 'provider', rule: `one of ${Object.keys(PROVIDERS).join(', ')}` });
  }
  if (provider !== null && provider !== 'cpu') {
    throw new ProviderError(`provider '${provider}' is not offered to JavaScript`, {
      where: 'provider',
      rule: 'cpu: ONNX Runtime for JavaScript does not tell whether a session fell back from another',
      wayOut: 'use edgekit in Python or C++ for CUDA and TensorRT',
    });
  }
  const here = variants.filter((variant) => variant.provider === 'cpu');
  if (!here.length) {
    throw new ProviderError('no variant runs on cpu', {
      where: 'bundle', rule: `it has ${variants.join(', ')}`, wayOut: 'bundle the model for the CPU as well',
    });
  }
  const byPrecision = [...here].sort((one, other) => isInt8(one) - isInt8(other));
  if (isa === 'wasm') return (proof ? here : byPrecision).map(inWasm);
  const fits = (variant) => (RUNS[isa] ?? ['any']).includes(variant.target);
  const reason = (variant) => `made for ${variant.target}; this processor is ${isa}`;
  const madeFor = here.filter(fits).map((variant) => ({ variant, reason: reason(variant), compromise: '', config: {} }));
  return [...madeFor, ...byPrecision.filter((variant) => !fits(variant)).map((variant) => compromise(variant, isa))];
}

function isInt8(variant) {
  return variant.precision.includes('int8');
}

function inWasm(variant) {
  const reason = variant.target === 'any' ? 'float runs alike everywhere' : `made for ${variant.target}; WebAssembly has int8 kernels of its own`;
  return { variant, reason, compromise: '', config: {} };
}

function compromise(variant, isa) {
  const saturates = isInt8(variant) && SATURATES.includes(isa);
  return {
    variant,
    reason: 'nothing in the bundle was made for this processor',
    compromise:
      `it was made for ${variant.target}, and this processor is ${isa}: it may be slower, and its outputs may differ` +
      (saturates ? '; ONNX Runtime is told to avoid the 16-bit sums that would overflow without VNNI' : ''),
    // VPMADDUBSW adds pairs of U8 x S8 products in 16 bits, which overflow; this key makes ONNX Runtime avoid it.
    config: saturates ? { x64quantprecision: '1' } : {},
  };
}
