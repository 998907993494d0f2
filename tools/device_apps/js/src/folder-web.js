/** Browsers have no paths. */

import { BundleError } from './errors.js';

export async function openPath(path) {
  throw new BundleError(`got the path ${path}`, {
    where: 'source',
    rule: 'an address, bytes, or files that the user chose: a browser opens no path',
  });
}
