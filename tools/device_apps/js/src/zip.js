/** A zip without any of a zip's freedoms (APPNOTE.TXT 6.3.10, sections 4.3.7, 4.3.12 and 4.3.16).
 *
 * Every byte of the file is accounted for: entry after entry (local header, name, data), then the directory, then its
 * end. Entries are stored as they are, so nothing can grow on reading; both headers of an entry agree, so no two readers
 * see different files; there are no extra fields, comments, data descriptors, encryption or zip64. */

import { BundleError } from './errors.js';

const LOCAL = 30, CENTRAL = 46, END = 22;
const LOCAL_MARK = 0x04034b50, CENTRAL_MARK = 0x02014b50, END_MARK = 0x06054b50;
/** The only flag that an entry may bear: its name is UTF-8, as ASCII is. */
const UTF8 = 1 << 11;
/** The newest version of the format that may be needed: above lie zip64 and encryption. */
const VERSION = 20;
const DOS_FOLDER = 0x10, REGULAR = 0x8000;

/**
 * The entries of a zip file by name, as views into `data`, in the directory's order.
 *
 * @param {Uint8Array} data the whole file
 * @param {string} where its name, for errors
 * @param {number} most how many entries it may have
 * @returns {Map<string, Uint8Array>}
 * @throws {BundleError} the file is none of these zips; the text says which entry breaks which rule
 */
export function readZip(data, where, most) {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const { count, begin, end } = directory(view, where, most);
  const entries = [];
  let at = begin;
  for (let index = 0; index < count; index += 1) {
    const entry = central(data, view, at, end, where);
    entries.push(entry);
    at += CENTRAL + entry.nameBytes.length;
  }
  if (at !== end) refuse(`${end - at} bytes after the last entry of the directory`, where, 'entries alone');
  checkLayout(view, data, entries, begin, where);
  const found = new Map();
  for (const entry of entries) {
    if (found.has(entry.name)) refuse(`two entries ${entry.name}`, where, 'each name once');
    const bytes = data.subarray(entry.start + LOCAL + entry.nameBytes.length).subarray(0, entry.size);
    if (crc32(bytes) !== entry.crc) refuse("changed: its CRC-32 is not the zip's", `${where}/${entry.name}`, 'every file as written');
    found.set(entry.name, bytes);
  }
  return found;
}

function directory(view, where, most) {
  const at = view.byteLength - END;
  if (at < 0 || view.getUint32(at, true) !== END_MARK) {
    refuse('no end of a zip at the end of the file', where, 'a whole zip without a comment, and nothing after it');
  }
  const [disk, first, here, count] = [4, 6, 8, 10].map((offset) => view.getUint16(at + offset, true));
  const length = view.getUint32(at + 12, true), begin = view.getUint32(at + 16, true);
  if (disk || first || here !== count || view.getUint16(at + 20, true)) {
    refuse('several disks or a comment', where, 'one file without a comment');
  }
  if (count < 1 || count > most) refuse(`${count} entries`, where, `1 to ${most}, without zip64`);
  if (begin + length !== at) refuse(`a directory of ${length} bytes at ${begin}`, where, "it ends where the file's end begins");
  return { count, begin, end: at };
}

/** The entry that the directory has at `at`. */
function central(data, view, at, end, where) {
  if (at + CENTRAL > end || view.getUint32(at, true) !== CENTRAL_MARK) {
    refuse('no entry where the directory should have one', where, 'a whole central directory');
  }
  const short = (offset) => view.getUint16(at + offset, true), long = (offset) => view.getUint32(at + offset, true);
  const nameBytes = data.subarray(at + CENTRAL, Math.min(at + CENTRAL + short(28), end));
  const place = `${where}, entry ${new TextDecoder().decode(nameBytes)}`;
  if (short(8) & ~UTF8) refuse(`flags ${short(8)}`, place, 'no encryption and no data descriptor');
  if (short(10) || long(20) !== long(24)) refuse('a compressed entry', place, 'entries stored as they are');
  if (short(6) > VERSION || short(34)) refuse(`needs version ${short(6) / 10}`, place, 'at most version 2.0, without zip64, on one disk');
  if (short(30) || short(32) || !short(28)) refuse('extra fields, a comment, or no name', place, 'a name, and neither of these');
  const kind = (long(38) >>> 16) & 0xf000;
  if ((kind !== 0 && kind !== REGULAR) || long(38) & DOS_FOLDER) {
    refuse('a link or a folder', place, 'regular files only: a link can lead out of the bundle');
  }
  return {
    nameBytes, name: nameOf(nameBytes, place), size: long(24), start: long(42), crc: long(16),
    // What the local header has to say: all from the version to both sizes, which stand there in the same order.
    shared: data.subarray(at + 6, at + 28), place,
  };
}

/** That entries stand one after the other from the first byte on, and each as the directory says. */
function checkLayout(view, data, entries, end, where) {
  let position = 0;
  for (const entry of [...entries].sort((one, other) => one.start - other.start)) {
    if (entry.start !== position) refuse(`begins at ${entry.start}`, entry.place, `entries without gap or overlap: at ${position}`);
    const names = position + LOCAL, body = names + entry.nameBytes.length;
    position = body + entry.size;
    if (position > end) refuse(`${entry.size} bytes`, entry.place, 'whole entries before the directory');
    const same =
      view.getUint32(entry.start, true) === LOCAL_MARK &&
      equal(data.subarray(entry.start + 4, entry.start + 26), entry.shared) &&
      view.getUint16(entry.start + 26, true) === entry.nameBytes.length &&
      view.getUint16(entry.start + 28, true) === 0 &&
      equal(data.subarray(names, body), entry.nameBytes);
    if (!same) refuse('the local header says something else than the directory', entry.place, 'both agree');
  }
  if (position !== end) refuse(`${end - position} bytes between the entries and the directory`, where, 'entries without gap');
}

function equal(one, other) {
  return one.length === other.length && one.every((byte, index) => byte === other[index]);
}

function nameOf(bytes, place) {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return refuse('a name that is no text', place, 'names in UTF-8');
  }
}

let table;

function crc32(data) {
  table ??= Uint32Array.from({ length: 256 }, (_, index) => {
    let value = index;
    for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
    return value;
  });
  let crc = 0xffffffff;
  for (let i = 0; i < data.length; i += 1) crc = table[(crc ^ data[i]) & 0xff] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

function refuse(problem, where, rule) {
  throw new BundleError(problem, { where, rule, wayOut: 'get the bundle again from where it was made; do not run this one' });
}
