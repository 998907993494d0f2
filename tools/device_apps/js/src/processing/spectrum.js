/** The discrete Fourier transform of real frames, in float64. */

/**
 * |X_k| or its square for k = 0 … n / 2.
 *
 * @param {Float64Array} frame
 * @param {number} exponent 1 or 2
 * @returns {Float64Array}
 */
export function power(frame, exponent) {
  const n = frame.length, real = Float64Array.from(frame), imaginary = new Float64Array(n);
  if (Number.isInteger(Math.log2(n))) fast(real, imaginary);
  else direct(frame, real, imaginary);
  return Float64Array.from({ length: Math.floor(n / 2) + 1 }, (_, k) => {
    const square = real[k] * real[k] + imaginary[k] * imaginary[k];
    return exponent === 1 ? Math.sqrt(square) : square;
  });
}

const circles = new Map();

/** Cosine and sine of 2 pi k / n for all k. */
function circle(n) {
  if (!circles.has(n)) {
    const angles = Float64Array.from({ length: n }, (_, k) => (2 * Math.PI * k) / n);
    circles.set(n, { cosine: angles.map(Math.cos), sine: angles.map(Math.sin) });
  }
  return circles.get(n);
}

/** By definition, for lengths that are no power of two (25 ms are 400 samples at 16 kHz). */
function direct(frame, real, imaginary) {
  const n = frame.length, { cosine, sine } = circle(n);
  for (let k = 0; k <= n / 2; k += 1) {
    let sum = 0, turned = 0;
    for (let i = 0, at = 0; i < n; i += 1, at = (at + k) % n) {
      sum += frame[i] * cosine[at];
      turned -= frame[i] * sine[at];
    }
    real[k] = sum;
    imaginary[k] = turned;
  }
}

/** Cooley and Tukey's, in place: An algorithm for the machine calculation of complex Fourier series (1965). */
function fast(real, imaginary) {
  const n = real.length, { cosine, sine } = circle(n);
  for (let i = 1, j = 0; i < n; i += 1) {
    let bit = n >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) [real[i], real[j]] = [real[j], real[i]]; // The imaginary parts are all zero yet.
  }
  for (let size = 2; size <= n; size *= 2) {
    const half = size / 2, step = n / size;
    for (let start = 0; start < n; start += size) {
      for (let k = 0; k < half; k += 1) {
        const one = start + k, other = one + half, c = cosine[k * step], s = -sine[k * step];
        const x = real[other] * c - imaginary[other] * s, y = real[other] * s + imaginary[other] * c;
        real[other] = real[one] - x;
        imaginary[other] = imaginary[one] - y;
        real[one] += x;
        imaginary[one] += y;
      }
    }
  }
}
