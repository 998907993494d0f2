/** From an image to a model's input, exactly as in training. */

import { DataError } from '../errors.js';
import { exactly, Fields, isNumber, isWhole } from '../fields.js';
import { MAX_PIXELS, geometry, place } from './geometry.js';

/** @typedef {{height: number, width: number, channels: number, data: Uint8Array | Uint8ClampedArray}} Pixels */

const KEYS = ['kind', 'size', 'fit', 'shorter_side', 'pad', 'filter', 'antialias', 'colour', 'scale', 'mean', 'std', 'layout'];
const MAX_SIDE = 16_384, SMALLEST = 1e-30;

/** The image preprocessing of a bundle's manifest, checked. */
export function readImage(data, where) {
  const row = exactly(data, KEYS, where), fields = new Fields(row, where);
  fields.choice('fit', ['stretch', 'resize-crop', 'crop-resize', 'letterbox']);
  fields.choice('filter', ['bilinear', 'bicubic', 'nearest']);
  fields.choice('colour', ['RGB', 'BGR', 'grey']);
  fields.choice('layout', ['NCHW', 'NHWC']);
  const { size } = row;
  if (!Array.isArray(size) || size.length !== 2 || !size.every((side) => isWhole(side, 1, MAX_SIDE))) {
    fields.refuse('size', `height and width in pixels, 1 to ${MAX_SIDE}`);
  }
  if (row.fit === 'resize-crop') fields.whole('shorter_side', Math.max(...size), MAX_SIDE);
  else fields.none('shorter_side', 'null, but for the fit resize-crop');
  if (row.fit === 'letterbox') fields.whole('pad', 0, 255);
  else fields.none('pad', 'null, but for the fit letterbox');
  fields.flag('antialias');
  if (row.filter === 'nearest' && row.antialias) fields.refuse('antialias', 'false for the filter nearest');
  fields.number('scale', SMALLEST);
  const channels = row.colour === 'grey' ? 1 : 3;
  for (const [name, low] of [['mean', undefined], ['std', SMALLEST]]) {
    if (!Array.isArray(row[name]) || row[name].length !== channels || !row[name].every((value) => isNumber(value, low))) {
      fields.refuse(name, `${channels} numbers, one for each channel of ${row.colour}`);
    }
  }
  return row;
}

/**
 * The model's input float32 [1, C, H, W] (or [1, H, W, C]) of one image.
 *
 * @param {Pixels} image as `pixels` gives it
 */
export function prepareImage(image, how) {
  const placed = place(coloured(image, how.colour), geometry(image.height, image.width, how), how);
  const { data, channels } = placed, [height, width] = how.size, area = height * width;
  const made = new Float32Array(data.length), { fround } = Math;
  // A division, because torch's ToTensor divides by 255: multiplying by 1/255 differs in the last bit.
  const divisor = fround(1 / how.scale), mean = how.mean.map(fround), std = how.std.map(fround);
  for (let pixel = 0, from = 0; pixel < area; pixel += 1) {
    for (let c = 0; c < channels; c += 1, from += 1) {
      const value = fround(fround(fround(data[from] / divisor) - mean[c]) / std[c]);
      made[how.layout === 'NHWC' ? from : c * area + pixel] = value;
    }
  }
  const shape = how.layout === 'NHWC' ? [1, height, width, channels] : [1, channels, height, width];
  return { dtype: 'float32', shape, data: made };
}

/**
 * An image as users have it, without its alpha channel: ImageData, or `{data, width, height}` with 1, 3 or 4 bytes for
 * each pixel, or a tensor uint8 [H, W], [H, W, 1], [H, W, 3].
 *
 * @param {any} raw
 * @returns {Pixels}
 * @throws {DataError} it is no such image
 */
export function pixels(raw) {
  const shape = raw?.shape ?? raw?.dims;
  const { data } = raw ?? {}, height = shape ? shape[0] : raw?.height, width = shape ? shape[1] : raw?.width;
  const isBytes = data instanceof Uint8Array || data instanceof Uint8ClampedArray;
  const channels = isBytes ? data.length / (height * width) : 0;
  const fits = isWhole(height, 1, MAX_PIXELS) && isWhole(width, 1, MAX_PIXELS) && height * width <= MAX_PIXELS;
  if (!fits || ![1, 3, 4].includes(channels) || (shape && shape.length > 3)) {
    throw new DataError('got something else than an image', {
      where: 'image',
      rule: `ImageData, or {data, width, height} with 1, 3 or 4 bytes for each pixel, at most ${MAX_PIXELS} pixels`,
      wayOut: "leave scaling and layout to the preprocessing; a prepared tensor goes in by name: predict({input: tensor})",
    });
  }
  return channels === 4 ? { height, width, channels: 3, data: withoutAlpha(data) } : { height, width, channels, data };
}

function withoutAlpha(data) {
  const made = new Uint8ClampedArray((data.length / 4) * 3);
  for (let from = 0, to = 0; from < data.length; from += 4, to += 3) {
    made[to] = data[from];
    made[to + 1] = data[from + 1];
    made[to + 2] = data[from + 2];
  }
  return made;
}

/** Pixels in the model's colours. */
function coloured(image, colour) {
  const { height, width, channels, data } = image, wanted = colour === 'grey' ? 1 : 3;
  if (channels === wanted && colour !== 'BGR') return image;
  const made = new Uint8ClampedArray(height * width * wanted);
  const green = channels === 1 ? 0 : 1, blue = channels === 1 ? 0 : 2;
  for (let pixel = 0, from = 0, to = 0; pixel < height * width; pixel += 1, from += channels, to += wanted) {
    const r = data[from], g = data[from + green], b = data[from + blue];
    if (wanted === 1) {
      // ITU-R 601-2 luma in 16-bit fixed point, as Pillow's convert("L").
      made[to] = (r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16;
    } else {
      made[to] = colour === 'BGR' ? b : r;
      made[to + 1] = g;
      made[to + 2] = colour === 'BGR' ? r : b;
    }
  }
  return { height, width, channels: wanted, data: made };
}
