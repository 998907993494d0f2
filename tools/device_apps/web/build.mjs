/** Build the page: `npm run build [-- NAME.edgekit.zip]`. Everything that it needs lies in dist/ afterwards; dist/ may be
 * served by anything that serves files. */

import { createHash } from 'node:crypto';
import { cp, mkdir, readFile, readdir, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const here = dirname(fileURLToPath(import.meta.url)), dist = join(here, 'dist');
const WASM = 'ort-wasm-simd-threaded.wasm', BUNDLE = 'model.edgekit.zip';

const [bundle] = process.argv.slice(2);
if (bundle !== undefined && !bundle.endsWith('.zip')) {
  console.error(`error: got ${bundle}\n  rule: a NAME.edgekit.zip\n  way out: cd ${bundle} && zip -0 -r -X -D ../NAME.edgekit.zip .`);
  process.exit(2);
}

await rm(dist, { recursive: true, force: true });
await mkdir(dist);
const shared = { bundle: true, minify: true, format: 'esm', target: 'es2022', outdir: dist, logLevel: 'warning' };
await build({
  ...shared,
  entryPoints: [join(here, 'src/app.js')],
  alias: { edgekit: join(here, '../js/src/index.js') },
  nodePaths: [join(here, 'node_modules')], // The package beside this folder finds ONNX Runtime here.
});
await cp(join(here, 'static'), dist, { recursive: true });
await cp(join(dirname(createRequire(import.meta.url).resolve('onnxruntime-web/wasm')), WASM), join(dist, WASM));

// What works offline, under a version that changes when any of it does.
const files = (await readdir(dist)).sort(), digest = createHash('sha256');
for (const file of files) digest.update(file).update(await readFile(join(dist, file)));
const version = `edgekit-${digest.digest('hex').slice(0, 16)}`;
await build({
  ...shared,
  entryPoints: [join(here, 'src/service-worker.js')],
  define: { VERSION: JSON.stringify(version), FILES: JSON.stringify(files) },
});
if (bundle) await cp(resolve(bundle), join(dist, BUNDLE));
console.log(`dist/ holds ${version}${bundle ? ` with ${bundle}` : `; put a bundle beside it as dist/${BUNDLE}`}`);
console.log('look at it: python -m http.server --directory dist 8000');
