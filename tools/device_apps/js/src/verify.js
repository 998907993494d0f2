/** A bundle is what its manifest says, or it is refused before ONNX Runtime sees a byte. */

import { BundleError } from './errors.js';
import { BUNDLE_FILE, packageFiles, readManifest } from './manifest.js';
import { sha256 } from './sha256.js';
import { openSource } from './sources.js';
import { isObject, parse } from './strict-json.js';

const AGAIN = 'get the bundle again from where it was made; do not run this one';

/** A bundle whose files are all there, and whose manifest can be read; `digest` stands for all of them. */
export class Opened {
  constructor(source, manifest, digest) {
    this.source = source;
    this.manifest = manifest;
    this.digest = digest;
  }

  /**
   * The bytes of a listed file: what is returned is what was hashed.
   *
   * @param {string} path
   * @returns {Promise<Uint8Array>}
   * @throws {BundleError} the file changed
   */
  async read(path) {
    const entry = this.manifest.files.get(path), data = await this.source.read(path);
    if (data.length !== entry.size || (await sha256(data)) !== entry.sha256) {
      refuse("changed: its SHA-256 is not the manifest's", `${this.source.name}/${path}`, 'every file as written');
    }
    return data;
  }

  /** Compare every file with its digest. */
  async checkDigests() {
    for (const path of this.manifest.files.keys()) await this.read(path);
  }
}

/**
 * Read a bundle's manifest and compare it with what is there: names, kinds of files, sizes; no digests yet.
 *
 * @param {any} from see `openSource`
 * @param {(text: string) => void} warn
 * @returns {Promise<Opened>}
 * @throws {BundleError} not a bundle; or a file is missing, extra or of another size; or the manifest is malformed
 */
export async function openBundle(from, warn) {
  const source = await openSource(from);
  if (!source.sizes.has(BUNDLE_FILE)) refuse(`no ${BUNDLE_FILE}`, source.name, `a bundle holds ${BUNDLE_FILE}`);
  const data = await source.read(BUNDLE_FILE), about = parse(data, BUNDLE_FILE);
  const manifest = readManifest(about, warn);
  compare(source, manifest);
  const opened = new Opened(source, manifest, await sha256(data));
  for (const [file, expected] of Object.entries(packageFiles(manifest, about.version))) {
    // ONNX Runtime itself would open what these name; so they name what bundle.json does, and nothing else.
    if (!same(parse(await opened.read(file), file), expected)) refuse(`says something else than ${BUNDLE_FILE}`, `${source.name}/${file}`, 'both agree');
  }
  return opened;
}

function compare(source, manifest) {
  const listed = new Set([BUNDLE_FILE, ...manifest.files.keys()]);
  for (const path of source.sizes.keys()) {
    if (!listed.has(path)) refuse('not in the manifest', `${source.name}/${path}`, 'only listed files');
  }
  for (const path of listed) {
    if (!source.sizes.has(path)) refuse('missing', `${source.name}/${path}`, 'every listed file');
  }
  for (const [path, entry] of manifest.files) {
    const size = source.sizes.get(path);
    if (size !== entry.size) refuse(`${size} bytes`, `${source.name}/${path}`, `${entry.size} bytes in the manifest`);
  }
}

/** Whether two JSON values are equal, whatever the order of their keys. */
function same(one, other) {
  if (Array.isArray(one) || !isObject(one)) return one === other;
  const keys = Object.keys(one);
  return isObject(other) && keys.length === Object.keys(other).length && keys.every((key) => Object.hasOwn(other, key) && same(one[key], other[key]));
}

/** @returns {never} */
function refuse(problem, where, rule) {
  throw new BundleError(problem, { where, rule, wayOut: AGAIN });
}
