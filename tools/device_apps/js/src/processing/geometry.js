/** Where an image lands in a model's input, and the way back: boxes are found in the one and wanted in the other. */

import { DataError } from '../errors.js';
import { resize } from './resize.js';

/** Of an image, and of what it becomes on its way: a strip of one pixel's height would grow without end. */
export const MAX_PIXELS = 100_000_000;

/**
 * How an image of height `h` and width `w` becomes the model's input: cut a part out, resize it, and lay it on a canvas;
 * all in pixels, height or top first. An offset is negative where the canvas shows the middle of the part only.
 *
 * @param {{size: number[], fit: string, shorter_side: number | null}} how
 * @returns {{cut: number[], resized: number[], offset: number[], size: number[]}}
 * @throws {DataError} the resized image would have over 100 megapixels
 */
export function geometry(h, w, how) {
  const [height, width] = how.size;
  let cut = [0, 0, h, w], resized = [height, width], offset = [0, 0];
  if (how.fit === 'resize-crop') {
    const side = how.shorter_side;
    resized = h <= w ? [side, Math.floor((side * w) / h)] : [Math.floor((side * h) / w), side];
    // Half to even, as torchvision's CenterCrop.
    offset = [-halfToEven((resized[0] - height) / 2), -halfToEven((resized[1] - width) / 2)];
  } else if (how.fit === 'crop-resize') {
    const wide = w * height > h * width;
    const rows = wide ? h : Math.max(1, Math.floor((w * height) / width));
    const columns = wide ? Math.max(1, Math.floor((h * width) / height)) : w;
    cut = [Math.floor((h - rows) / 2), Math.floor((w - columns) / 2), rows, columns];
  } else if (how.fit === 'letterbox') {
    const factor = Math.min(height / h, width / w);
    resized = [[height, h], [width, w]].map(([most, side]) => Math.max(1, Math.min(most, Math.floor(side * factor + 0.5))));
    offset = [Math.floor((height - resized[0]) / 2), Math.floor((width - resized[1]) / 2)];
  }
  if (resized[0] * resized[1] > MAX_PIXELS) {
    throw new DataError(`an image of ${h} x ${w} pixels`, {
      where: 'image',
      rule: `at most ${MAX_PIXELS} pixels when its shorter side is resized to ${how.shorter_side}`,
      wayOut: 'cut the image into parts that are less long',
    });
  }
  return { cut, resized, offset, size: how.size };
}

/** `image` on its canvas; `pad` fills what the part does not cover. */
export function place(image, { cut, resized, offset, size }, { filter, antialias, pad }) {
  const part = resize(crop(image, ...cut), resized[0], resized[1], filter, antialias);
  if (part.height === size[0] && part.width === size[1]) return part;
  const { channels } = image, data = new Uint8ClampedArray(size[0] * size[1] * channels).fill(pad ?? 0);
  for (let y = Math.max(offset[0], 0); y < Math.min(offset[0] + part.height, size[0]); y += 1) {
    const left = Math.max(offset[1], 0), right = Math.min(offset[1] + part.width, size[1]);
    const from = ((y - offset[0]) * part.width + left - offset[1]) * channels;
    data.set(part.data.subarray(from, from + (right - left) * channels), (y * size[1] + left) * channels);
  }
  return { height: size[0], width: size[1], channels, data };
}

/** A box (x1, y1, x2, y2) of the canvas in pixels of the image. */
export function back(box, { cut, resized, offset }) {
  const factors = [cut[3] / resized[1], cut[2] / resized[0]];
  return box.map((value, side) => (value - offset[1 - (side % 2)]) * factors[side % 2] + cut[1 - (side % 2)]);
}

function crop(image, top, left, height, width) {
  if (height === image.height && width === image.width) return image;
  const { channels } = image, data = new Uint8ClampedArray(height * width * channels);
  for (let y = 0; y < height; y += 1) {
    const from = ((top + y) * image.width + left) * channels;
    data.set(image.data.subarray(from, from + width * channels), y * width * channels);
  }
  return { height, width, channels, data };
}

function halfToEven(value) {
  const down = Math.floor(value);
  if (value - down === 0.5) return down % 2 === 0 ? down : down + 1;
  return Math.floor(value + 0.5);
}
