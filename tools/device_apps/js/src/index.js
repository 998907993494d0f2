/** Runs edgekit bundles in browsers and in Node. */

export { BundleError, DataError, EdgekitError, ProviderError } from './errors.js';
export { Model, load } from './model.js';
export { readNpy } from './npy.js';
