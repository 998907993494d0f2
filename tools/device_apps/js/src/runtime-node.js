/** ONNX Runtime in Node: the native one where it is installed, else WebAssembly. */

import { readFileSync } from 'node:fs';
import { ProviderError } from './errors.js';

/** The `onnxruntime-node` or `onnxruntime-web` that is installed. */
export async function defaultRuntime() {
  for (const name of ['onnxruntime-node', 'onnxruntime-web']) {
    try {
      return await import(name);
    } catch {
      continue; // Either will do.
    }
  }
  throw new ProviderError('neither onnxruntime-node nor onnxruntime-web can be imported', {
    where: 'this installation of Node', rule: 'one of them', wayOut: 'npm install onnxruntime-node, or npm install onnxruntime-web',
  });
}

/** Which int8 file suits this processor: `x86-vnni`, `x86-avx2`, `arm64`; another architecture by its own name. Where
 * the flags cannot be read (outside Linux), an x86 is taken for one without VNNI: that file is right on all of them. */
export function nativeIsa() {
  if (process.arch !== 'x64') return process.arch;
  let flags;
  try {
    flags = new Set(/^flags\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1].split(' '));
  } catch {
    return 'x86-avx2';
  }
  if (flags.has('avx512_vnni') || flags.has('avx_vnni')) return 'x86-vnni';
  return flags.has('avx2') ? 'x86-avx2' : 'x86';
}
