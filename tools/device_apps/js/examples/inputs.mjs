/** Files as `predict` takes them. */

import { readFile } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { extname } from 'node:path';
import { DataError, readNpy } from 'edgekit';

/** What the words on the command line mean for a bundle: a file, or a text where it takes one.
 * @param {string} input
 * @param {import('edgekit').Manifest} manifest */
export async function readInput(input, manifest) {
  if (manifest.preprocessing?.kind === 'wordpiece' && !existsSync(input)) return input;
  const data = await readFile(input).catch((cause) => {
    throw new DataError(`cannot read: ${cause.code}`, { where: input, rule: 'a file', cause });
  });
  const reader = READERS[extname(input).toLowerCase()];
  if (!reader) throw new DataError(`a file ${extname(input)}`, { where: input, rule: `one of ${Object.keys(READERS).join(', ')}` });
  return reader(new Uint8Array(data.buffer, data.byteOffset, data.length), input, manifest);
}

const READERS = { '.npy': readNpy, '.ppm': readPnm, '.pgm': readPnm, '.wav': readWav, '.png': readPng, '.jpg': readJpeg, '.jpeg': readJpeg, '.txt': readText };

function readText(data) {
  return new TextDecoder('utf-8', { fatal: true }).decode(data);
}

/** Netpbm's P5 (grey) and P6 (RGB) of one byte a sample. */
function readPnm(data, where) {
  const head = /^P([56])\s(?:#.*\n)*(\d+)\s(?:#.*\n)*(\d+)\s(?:#.*\n)*255\s/.exec(new TextDecoder('latin1').decode(data.subarray(0, 4096)));
  if (!head) throw new DataError('no PPM or PGM', { where, rule: 'P5 or P6 with 255 levels' });
  const width = Number(head[2]), height = Number(head[3]), channels = head[1] === '5' ? 1 : 3;
  return { width, height, data: data.subarray(head[0].length, head[0].length + width * height * channels) };
}

async function readPng(data, where) {
  return decoded('@jsquash/png', 'codec/pkg/squoosh_png_bg.wasm', data, where);
}

async function readJpeg(data, where) {
  return decoded('@jsquash/jpeg', 'codec/dec/mozjpeg_dec.wasm', data, where);
}

/** Pixels of a compressed image. The decoders are libpng's and libjpeg's kin in WebAssembly, so that pixels are those
 * that Pillow sees. */
async function decoded(name, wasm, data, where) {
  let decoder, code;
  try {
    decoder = await import(`${name}/decode.js`);
    code = await readFile(createRequire(import.meta.url).resolve(`${name}/${wasm}`));
  } catch (cause) {
    throw new DataError(`reading this image needs ${name}, which is not installed`, { where, rule: 'PPM and PGM need nothing', wayOut: `npm install ${name}`, cause });
  }
  // The decoders were written for browsers, which have this class.
  globalThis.ImageData ??= class { constructor(pixels, width, height) { Object.assign(this, { data: pixels, width, height }); } };
  try {
    await decoder.init(await WebAssembly.compile(code));
    const found = await decoder.default(data.slice().buffer);
    return { width: found.width, height: found.height, data: found.data };
  } catch (cause) {
    throw new DataError(`cannot read the image: ${cause.message ?? cause}`, { where, rule: `an image that ${name} reads`, cause });
  }
}

/** PCM of 8, 16, 24 or 32 bits; channels are averaged. Another sample rate than the model's is refused: resampling badly
 * is a fault that nobody would notice. */
function readWav(data, where, manifest) {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength), name = (at) => String.fromCharCode(...data.subarray(at, at + 4));
  const fail = (problem, rule) => {
    throw new DataError(problem, { where, rule, wayOut: 'ffmpeg -i INPUT -ac 1 -ar RATE -c:a pcm_s16le OUTPUT.wav' });
  };
  if (data.length < 12 || name(0) !== 'RIFF' || name(8) !== 'WAVE') fail('no WAV', 'a .wav file');
  let format = null;
  for (let at = 12; at + 8 <= data.length; ) {
    const size = view.getUint32(at + 4, true), body = at + 8;
    if (name(at) === 'fmt ' && size >= 16) {
      const pcm = view.getUint16(body, true) === 1 || (size >= 26 && view.getUint16(body, true) === 0xfffe && view.getUint16(body + 24, true) === 1);
      format = { pcm, channels: view.getUint16(body + 2, true), rate: view.getUint32(body + 4, true), bytes: view.getUint16(body + 14, true) / 8 };
    }
    if (name(at) === 'data' && format) {
      if (!format.pcm || ![1, 2, 3, 4].includes(format.bytes) || !format.channels) fail('another encoding', 'PCM of 8, 16, 24 or 32 bits');
      const wanted = manifest.preprocessing?.sample_rate ?? format.rate;
      if (format.rate !== wanted) fail(`${format.rate} Hz`, `the model takes ${wanted} Hz`);
      return samples(view, body, Math.min(size, data.length - body), format);
    }
    at = body + size + (size % 2);
  }
  return fail('no sound in it', 'a .wav file');
}

function samples(view, start, size, { channels, bytes }) {
  const read = {
    1: (at) => (view.getUint8(at) - 128) / 128,
    2: (at) => view.getInt16(at, true) / 2 ** 15,
    3: (at) => (view.getInt16(at + 1, true) * 256 + view.getUint8(at)) / 2 ** 23,
    4: (at) => view.getInt32(at, true) / 2 ** 31,
  }[bytes];
  return Float32Array.from({ length: Math.floor(size / (bytes * channels)) }, (_, index) => {
    let sum = 0;
    for (let channel = 0; channel < channels; channel += 1) sum += read(start + (index * channels + channel) * bytes);
    return sum / channels;
  });
}
