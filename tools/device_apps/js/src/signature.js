/** Whether a bundle is signed with a key that one trusts, as `edgekit/device/signature.py` has it: a Sigstore bundle in JSON
 * around a DSSE envelope, whose payload lists the SHA-256 of every file (OpenSSF's model-signing). WebCrypto does the
 * elliptic curves; in browsers it is there on https and on localhost only. */

import { BundleError, EdgekitError } from './errors.js';
import { BUNDLE_FILE } from './manifest.js';
import { isObject, parse } from './strict-json.js';

const AGAIN = 'get the bundle and its signature again from where they were made; do not run this one';
const ENVELOPE = 'application/vnd.dev.sigstore.bundle.v0.3+json';
const PAYLOAD = 'application/vnd.in-toto+json';
const STATEMENT = 'https://in-toto.io/Statement/v1';
const PREDICATE = 'https://model_signing/signature/v1.0';
/** Elliptic curves with the hash that goes with each, and the bytes of a number on it. */
const CURVES = [['P-256', 'SHA-256', 32], ['P-384', 'SHA-384', 48], ['P-521', 'SHA-512', 66]];

/** Where a bundle's signature lies: `NAME.edgekit.sig` for `NAME.edgekit` and `NAME.edgekit.zip`. */
export function signatureBeside(path) {
  return `${path.replace(/\.zip$/i, '')}.sig`;
}

/**
 * Refuse a bundle whose files are not those that the owner of a key signed. Digests are compared with the signed ones here;
 * that files have these digests is checked as they are read.
 *
 * @param {import('./verify.js').Opened} opened
 * @param {string} publicKey the PEM text of a public key on P-256, P-384 or P-521
 * @param {Uint8Array | string | null} signature what is in the .sig; null looks for it beside the bundle
 * @throws {BundleError} there is no signature, it is not by this key, or it is for other files
 * @throws {EdgekitError} the key cannot be read, or there is no WebCrypto
 */
export async function checkSignature(opened, publicKey, signature) {
  const given = signature ?? (await opened.source.signature());
  const where = `signature of ${opened.source.name}`;
  const envelope = parse(typeof given === 'string' ? new TextEncoder().encode(given) : given, where);
  if (envelope.mediaType !== ENVELOPE) refuse(`got ${JSON.stringify(envelope.mediaType)}`, where, ENVELOPE);
  const payload = await verified(envelope.dsseEnvelope, await keyOf(publicKey), where);
  const signed = digestsIn(parse(payload, `payload of the ${where}`), where);
  const actual = new Map([[BUNDLE_FILE, opened.digest], ...Array.from(opened.manifest.files, ([path, { sha256 }]) => [path, sha256])]);
  for (const name of [...new Set([...signed.keys(), ...actual.keys()])].sort()) {
    if (signed.get(name) === actual.get(name)) continue;
    const problem = !actual.has(name) ? 'is signed and missing' : signed.has(name) ? 'changed after it was signed' : 'is not signed';
    refuse(`${name} ${problem}`, where, 'the files that were signed, and no others');
  }
}

/** The key with what its curve asks for. */
async function keyOf(pem) {
  const rule = 'the PEM text of a public key on P-256, P-384 or P-521', where = 'publicKey';
  if (!globalThis.crypto?.subtle) {
    throw new EdgekitError('there is no WebCrypto', { where, rule: 'signatures are checked with it', wayOut: 'serve the page over https' });
  }
  const body = /^\s*-----BEGIN PUBLIC KEY-----([A-Za-z0-9+/=\s]+)-----END PUBLIC KEY-----\s*$/.exec(pem)?.[1];
  const spki = body && base64(body.replace(/\s/g, ''));
  for (const [namedCurve, hash, size] of spki ? CURVES : []) {
    try {
      return { key: await crypto.subtle.importKey('spki', spki, { name: 'ECDSA', namedCurve }, false, ['verify']), hash, size };
    } catch {
      // Of another curve, or no key at all: the next one tells.
    }
  }
  throw new EdgekitError('cannot read the public key', { where, rule, wayOut: 'openssl ec -in private.pem -pubout' });
}

/** The payload, whose signature is by the key (DSSE 1.0: what is signed is the payload and its type). */
async function verified(envelope, { key, hash, size }, where) {
  const { payload, payloadType, signatures } = isObject(envelope) ? envelope : {}, one = Array.isArray(signatures) && signatures.length === 1 && signatures[0];
  if (![payload, payloadType, one?.sig].every((text) => typeof text === 'string')) {
    refuse('no envelope with one signature', where, 'what `edgekit bundle --sign` or model-signing wrote');
  }
  if (payloadType !== PAYLOAD) refuse(`a payload of '${payloadType}'`, where, PAYLOAD);
  const body = base64(payload), der = base64(one.sig);
  if (!body || !der) refuse('not base64', where, 'base64');
  const head = new TextEncoder().encode(`DSSEv1 ${payloadType.length} ${payloadType} ${body.length} `);
  const signed = new Uint8Array(head.length + body.length);
  signed.set(head);
  signed.set(body, head.length);
  const proof = numbers(der, size);
  if (!proof || !(await crypto.subtle.verify({ name: 'ECDSA', hash }, key, proof, signed))) {
    refuse("the signature is not by this key, or the signature's file was changed", where, 'a signature by the key that is asked for');
  }
  return body;
}

/** The digests that were signed, by file. */
function digestsIn(statement, where) {
  const { _type: kind, predicateType, predicate } = statement, how = predicate?.serialization, rows = predicate?.resources;
  if (kind !== STATEMENT || predicateType !== PREDICATE || how?.method !== 'files' || how?.hash_type !== 'sha256' || !Array.isArray(rows)) {
    refuse('a statement of another kind', where, `${PREDICATE}, SHA-256 of whole files`);
  }
  const digests = new Map();
  for (const row of rows) {
    if (typeof row?.name !== 'string' || row.algorithm !== 'sha256' || typeof row.digest !== 'string' || digests.has(row.name)) {
      refuse(`the entry ${JSON.stringify(row)}`, where, 'a name that stands there once, sha256 and its digest');
    }
    digests.set(row.name, row.digest);
  }
  return digests;
}

/** Strict base64; null where it is none. `atob` would leave out blanks and padding. */
function base64(text) {
  if (!/^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(text)) return null;
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

/** The two numbers of a signature one after the other, as WebCrypto takes them, from DER (X.690: a SEQUENCE of two INTEGERs). */
function numbers(der, size) {
  const made = new Uint8Array(2 * size), long = der[1] === 0x81 ? 1 : 0;
  let at = 2 + long;
  if (der[0] !== 0x30 || der[1 + long] !== der.length - at) return null;
  for (const end of [size, 2 * size]) {
    const length = der[at + 1], value = der.subarray(at + 2, at + 2 + length), bare = value[0] === 0 ? value.subarray(1) : value;
    if (der[at] !== 0x02 || value.length !== length || bare.length > size) return null;
    made.set(bare, end - bare.length);
    at += 2 + length;
  }
  return at === der.length ? made : null;
}

/** @returns {never} */
function refuse(problem, where, rule) {
  throw new BundleError(problem, { where, rule, wayOut: AGAIN });
}
