/** Image resizing to the values that training saw: to the bytes of edgekit/device/processing/resize.py. */

const PRECISION_BITS = 22;

/**
 * Pixels at another size. Antialiased, `bilinear` is a triangle and `bicubic` Keys' cubic with a = -0.5, both as wide as
 * the reduction asks for, in Pillow's fixed point. Without, they are 2 and 4 taps (a = -0.75) around the source
 * coordinate (i + 0.5) * old / new - 0.5. `nearest` takes the pixel under the centre of each new one.
 *
 * @param {import('./image.js').Pixels} image
 * @returns {import('./image.js').Pixels}
 */
export function resize(image, height, width, filter, antialias) {
  if (filter === 'nearest') return nearest(image, height, width);
  // Each row first. Pillow rounds to bytes between the passes; the others do not.
  if (antialias) {
    const wide = image.width === width ? image : fixedPoint(image, width, filter, true);
    return wide.height === height ? wide : fixedPoint(wide, height, filter, false);
  }
  const exact = interpolated(interpolated(image, width, filter, true), height, filter, false);
  return { ...exact, data: Uint8ClampedArray.from(exact.data, (value) => Math.min(255, Math.max(0, Math.floor(value + 0.5)))) };
}

function nearest(image, height, width) {
  const { channels } = image, data = new Uint8ClampedArray(height * width * channels);
  const rows = nearestOf(image.height, height), columns = nearestOf(image.width, width);
  for (let y = 0, to = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const from = (rows[y] * image.width + columns[x]) * channels;
      for (let c = 0; c < channels; c += 1, to += 1) data[to] = image.data[from + c];
    }
  }
  return { height, width, channels, data };
}

function nearestOf(old, size) {
  const step = old / size;
  let at = step * 0.5;
  // Pillow adds the step again and again; so do we, because multiplication rounds differently at ties.
  return Int32Array.from({ length: size }, (_, index) => {
    if (index) at += step;
    return Math.trunc(at);
  });
}

/** Call `line(from, fromStep, to, toStep)` for each row (or column) and channel of an image to be resized along it. */
function eachLine(image, size, across, data, line) {
  const { height, width, channels } = image;
  const fromStep = across ? channels : width * channels;
  const toWidth = across ? size : width, toStep = across ? channels : toWidth * channels;
  for (let i = 0; i < (across ? height : width); i += 1) {
    for (let c = 0; c < channels; c += 1) {
      line((across ? i * width * channels : i * channels) + c, fromStep, (across ? i * toWidth * channels : i * channels) + c, toStep);
    }
  }
  return { height: across ? height : size, width: toWidth, channels, data };
}

function fixedPoint(image, size, filter, across) {
  const { first, taps, weights } = weightsOf(across ? image.width : image.height, size, filter);
  const source = image.data, data = new Uint8ClampedArray((image.data.length / (across ? image.width : image.height)) * size);
  return eachLine(image, size, across, data, (from, fromStep, to, toStep) => {
    for (let index = 0; index < size; index += 1) {
      let total = 1 << (PRECISION_BITS - 1);
      for (let tap = 0; tap < taps[index]; tap += 1) {
        total = (total + source[from + (first[index] + tap) * fromStep] * weights[index][tap]) | 0;
      }
      data[to + index * toStep] = total >> PRECISION_BITS; // The array clamps to bytes.
    }
  });
}

/** For each new row the first old row it draws from, how many, and their weights in fixed point. */
function weightsOf(old, size, filter) {
  const scale = old / size, stretch = Math.max(scale, 1), support = stretch * (filter === 'bilinear' ? 1 : 2);
  const first = new Int32Array(size), taps = new Int32Array(size), weights = [];
  for (let index = 0; index < size; index += 1) {
    const centre = (index + 0.5) * scale;
    first[index] = Math.max(Math.trunc(centre - support + 0.5), 0);
    taps[index] = Math.min(Math.trunc(centre + support + 0.5), old) - first[index];
    const heights = new Float64Array(taps[index]);
    let sum = 0;
    for (let tap = 0; tap < taps[index]; tap += 1) {
      const distance = Math.abs((first[index] + tap - centre + 0.5) * (1 / stretch));
      heights[tap] = filter === 'bilinear' ? Math.max(1 - distance, 0) : cubic(distance, -0.5);
      sum += heights[tap];
    }
    weights.push(Int32Array.from(heights, (height) => {
      const share = height / sum;
      return Math.trunc(share * (1 << PRECISION_BITS) + (share < 0 ? -0.5 : 0.5));
    }));
  }
  return { first, taps, weights };
}

function interpolated(image, size, filter, across) {
  const old = across ? image.width : image.height, offsets = filter === 'bilinear' ? [0, 1] : [-1, 0, 1, 2];
  const data = new Float64Array((image.data.length / old) * size);
  const rows = Array.from({ length: size }, (_, index) => {
    const where = ((index + 0.5) * old) / size - 0.5, base = Math.floor(where);
    return offsets.map((tap) => {
      const distance = Math.abs(where - base - tap);
      // Beyond the edge the last pixel goes on.
      return [Math.min(Math.max(base + tap, 0), old - 1), filter === 'bilinear' ? 1 - distance : cubic(distance, -0.75)];
    });
  });
  return eachLine(image, size, across, data, (from, fromStep, to, toStep) => {
    for (let index = 0; index < size; index += 1) {
      let total = 0;
      for (const [row, weight] of rows[index]) total += image.data[from + row * fromStep] * weight;
      data[to + index * toStep] = total;
    }
  });
}

/** Keys' cubic of a distance from 0 up. */
function cubic(distance, a) {
  if (distance < 1) return ((a + 2) * distance - (a + 3)) * distance * distance + 1;
  return distance < 2 ? (((distance - 5) * distance + 8) * distance - 4) * a : 0;
}
