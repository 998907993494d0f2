/** A bundle on disk: a folder of ordinary files, or a zip. No link is followed. */

import { constants } from 'node:fs';
import { lstat, open, readdir } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { BundleError } from './errors.js';
import { MAX_FILES } from './manifest.js';
import { signatureBeside } from './signature.js';

const AGAIN = 'get the bundle again from where it was made; do not run this one';

/**
 * @param {string | URL} from a path, or a file: address
 * @param {(data: Uint8Array, name: string) => import('./sources.js').Source} zipSource
 * @returns {Promise<import('./sources.js').Source>}
 */
export async function openPath(from, zipSource) {
  const path = String(from).startsWith('file:') ? fileURLToPath(from) : String(from);
  const status = await lstat(path).catch(() => null), signature = () => readOrdinary(signatureBeside(resolve(path)), { single: false });
  if (status?.isFile() && path.toLowerCase().endsWith('.zip')) {
    return { ...zipSource(await readOrdinary(path, { single: false }), basename(path)), signature };
  }
  if (!status?.isDirectory()) {
    throw new BundleError(status ? 'neither a folder nor a .zip' : 'no such folder or file', {
      where: path,
      rule: 'a bundle is a folder or a zip that holds edgekit/bundle.json',
      wayOut: 'name the folder that `edgekit compress` or `edgekit bundle` printed',
    });
  }
  const sizes = await listing(path);
  return { name: path, sizes, read: (name) => readOrdinary(join(path, name)), signature };
}

/** Sizes of all files below `root` by path, all of them ordinary. */
async function listing(root) {
  const sizes = new Map(), pending = [''];
  for (let count = 0; pending.length; ) {
    const folder = pending.pop();
    const names = (await readdir(join(root, folder), { encoding: 'buffer' })).map((name) => text(name, root));
    if (!names.length && folder) refuse('an empty folder', join(root, folder), 'only listed files');
    for (const name of names.sort()) {
      count += 1;
      if (count > 2 * MAX_FILES) refuse(`more than ${2 * MAX_FILES} files and folders`, root, `at most ${MAX_FILES} files`);
      const path = folder ? `${folder}/${name}` : name, status = await lstat(join(root, path));
      if (status.isDirectory()) {
        if (path.split('/').length > 8) refuse('folders nested too deeply', join(root, path), 'at most 8 levels');
        pending.push(path);
      } else {
        checkOrdinary(status, join(root, path), true);
        sizes.set(path, status.size);
      }
    }
  }
  return sizes;
}

function text(name, root) {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(name);
  } catch {
    return refuse('a file whose name is no text', root, 'only listed files');
  }
}

function checkOrdinary(status, path, single) {
  if (status.isSymbolicLink()) refuse('a symbolic link', path, 'regular files only: a link can lead out of the bundle');
  if (!status.isFile()) refuse('not a regular file', path, 'regular files only');
  if (single && status.nlink > 1) {
    refuse(`a file with ${status.nlink} hard links`, path, 'one link: the file could be another one outside of the bundle');
  }
}

/** All bytes of a file that is a regular one even now, whatever the listing saw before. */
async function readOrdinary(path, { single = true } = {}) {
  const flags = constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0) | (constants.O_NONBLOCK ?? 0);
  let file;
  try {
    file = await open(path, flags);
    checkOrdinary(await file.stat(), path, single);
    const data = await file.readFile();
    return new Uint8Array(data.buffer, data.byteOffset, data.length);
  } catch (cause) {
    if (cause instanceof BundleError) throw cause;
    throw new BundleError(`cannot read: ${cause.code ?? cause.message}`, { where: path, rule: 'readable regular files', wayOut: AGAIN, cause });
  } finally {
    await file?.close();
  }
}

/** @returns {never} */
function refuse(problem, where, rule) {
  throw new BundleError(problem, { where, rule, wayOut: AGAIN });
}
