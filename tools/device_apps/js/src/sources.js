/** Where a bundle's files come from: a zip's bytes, an address, files that a user chose, a folder. */

import { openPath } from '#folder';
import { BundleError } from './errors.js';
import { MAX_FILES, checkPath } from './manifest.js';
import { signatureBeside } from './signature.js';
import { readZip } from './zip.js';

/** Zip files end there: neither zip64 nor larger arrays are read. */
const MAX_ZIP_BYTES = 2 ** 31 - 1;

/**
 * A bundle's files: their sizes by path, what reads one, and what reads the signature that lies beside the bundle.
 *
 * @typedef {{name: string, sizes: Map<string, number>, read: (path: string) => Promise<Uint8Array>,
 *   signature: () => Promise<Uint8Array>}} Source
 */

/**
 * @param {any} from bytes of a zip; an address or a path; a Blob; a FileList or list of files
 * @returns {Promise<Source>}
 */
export async function openSource(from) {
  if (typeof from === 'string' || from instanceof URL) return isAddress(from) ? fetched(from) : openPath(from, zipSource);
  if (from instanceof ArrayBuffer) return zipSource(new Uint8Array(from), 'bundle');
  // A copy, so that nobody changes the bytes between the check and the use.
  if (from instanceof Uint8Array) return zipSource(from.slice(), 'bundle');
  if (from instanceof Blob) return blobSource(from);
  const files = Array.from(from ?? []);
  if (files.length === 1 && !files[0].webkitRelativePath) return blobSource(files[0]);
  if (!files.length || !files.every((file) => file instanceof Blob)) {
    throw new BundleError('got something else than a bundle', {
      where: 'source',
      rule: 'the address, the bytes or the file of a NAME.edgekit.zip, a folder (in Node), or the files of a folder',
    });
  }
  return filesSource(files);
}

function isAddress(from) {
  const scheme = /^([a-z][a-z0-9+.-]+):/i.exec(String(from))?.[1].toLowerCase();
  return (scheme !== undefined && scheme !== 'file') || typeof document !== 'undefined';
}

async function fetched(from) {
  const where = String(from), [, path, rest] = /^([^?#]*)(.*)$/s.exec(where);
  const signature = () => bytesAt(`${signatureBeside(path)}${rest}`, 'the signature of a bundle, where a key is given');
  return { ...zipSource(await bytesAt(where, 'a NAME.edgekit.zip'), nameIn(where)), signature };
}

async function bytesAt(where, rule) {
  let response;
  try {
    response = await fetch(where);
  } catch (cause) {
    throw new BundleError(`cannot fetch: ${cause.message}`, { where, rule: 'an address that answers', cause });
  }
  if (!response.ok) throw new BundleError(`the server answers ${response.status}`, { where, rule });
  return new Uint8Array(await response.arrayBuffer());
}

/** Of bytes and of files that were handed over nobody knows what lies beside them. */
async function noSignature() {
  throw new BundleError('no signature', { where: 'signature', rule: 'a signed bundle, where a key is given', wayOut: 'hand over what is in its .sig, too' });
}

async function blobSource(file) {
  return zipSource(new Uint8Array(await file.arrayBuffer()), file.name ?? 'bundle');
}

/** The entries of a zip; what comes out is a copy, so that what was hashed is what is used. */
function zipSource(data, name) {
  if (data.length > MAX_ZIP_BYTES) throw new BundleError(`${data.length} bytes`, { where: name, rule: `at most ${MAX_ZIP_BYTES} bytes` });
  const entries = readZip(data, name, MAX_FILES + 1);
  for (const path of entries.keys()) checkPath(path, name);
  return { name, sizes: sizesOf(entries, (bytes) => bytes.length), read: async (path) => entries.get(path).slice(), signature: noSignature };
}

/** The files of a folder that was chosen or dropped in a browser. */
function filesSource(files) {
  if (files.length > MAX_FILES + 1) throw new BundleError(`${files.length} files`, { where: 'folder', rule: `at most ${MAX_FILES + 1}` });
  const entries = new Map(files.map((file) => {
    const [, ...parts] = (file.webkitRelativePath || `/${file.name}`).split('/');
    return [parts.join('/'), file];
  }));
  if (entries.size !== files.length) throw new BundleError('two files of one name', { where: 'folder', rule: 'each name once' });
  const name = files[0].webkitRelativePath.split('/')[0] || 'folder';
  return {
    name,
    sizes: sizesOf(entries, (file) => file.size),
    read: async (path) => new Uint8Array(await entries.get(path).arrayBuffer()),
    signature: noSignature,
  };
}

function sizesOf(entries, size) {
  return new Map(Array.from(entries, ([path, value]) => [path, size(value)]));
}

function nameIn(address) {
  return address.split(/[?#]/)[0].split('/').at(-1) || address;
}
