/** From a detector's outputs to boxes in the pixels of the image that it was given. */

import { BundleError } from '../errors.js';
import { exactly, Fields, isWhole } from '../fields.js';
import { numbers } from '../tensor.js';
import { SCORES, probabilities } from './classification.js';
import { back } from './geometry.js';

const KEYS = [
  'kind', 'boxes', 'scores', 'format', 'strides', 'coordinates', 'activation', 'background', 'score_threshold',
  'iou_threshold', 'max_detections', 'class_agnostic',
];

/** The detection postprocessing of a bundle's manifest, checked. */
export function readDetection(data, where) {
  const row = exactly(data, KEYS, where), fields = new Fields(row, where);
  fields.text('boxes');
  fields.text('scores');
  if (row.boxes === row.scores) fields.refuse('scores', 'another output than boxes');
  fields.choice('format', ['xyxy', 'cxcywh', 'ltrb']);
  fields.choice('coordinates', ['pixels', 'relative']);
  const { strides } = row;
  if (row.format !== 'ltrb') fields.none('strides', 'null, but for the format ltrb');
  else if (!Array.isArray(strides) || !isWhole(strides.length, 1, 16) || !strides.every((each) => isWhole(each, 1, 16_384))) {
    fields.refuse('strides', 'a list of 1 to 16 numbers of pixels');
  } else if (row.coordinates !== 'pixels') fields.refuse('coordinates', 'pixels, for the format ltrb');
  fields.choice('activation', SCORES);
  fields.whole('background', 0, 1_000_000, true);
  fields.number('score_threshold', 0, 1);
  fields.number('iou_threshold', 0, 1);
  fields.whole('max_detections', 1, 100_000);
  fields.flag('class_agnostic');
  return row;
}

/**
 * The objects of one image, the surest first. In float64, in this order: scores become probabilities; boxes are decoded;
 * each (box, class) with a probability of at least `score_threshold` is a candidate; candidates are sorted, ties by box,
 * then by class; the first that is left is kept, and all that overlap it by more than `iou_threshold` go; boxes go back
 * through the preprocessing's fit and are clipped to the image.
 *
 * @param {Record<string, import('../index.js').Tensor>} outputs
 * @param {string[]} labels the background among them; none numbers the classes
 * @param {{size: number[], placed: any, image: number[]}} seen height and width of the model's input; how the image came
 *   into it (null where the input is the image); height and width of the image that boxes are clipped to
 * @returns {import('../index.js').Detection[]}
 */
export function detect(outputs, labels, how, { size, placed, image }) {
  const boxes = outputs[how.boxes], scores = outputs[how.scores];
  check(boxes, scores, labels, how, size);
  const classes = scores.shape[2], corners = decode(numbers(boxes), how, size), shares = probabilities(scores, how.activation);
  const candidates = [];
  corners.forEach((box, at) => {
    if (!box.every(Number.isFinite)) return;
    for (let index = 0; index < classes; index += 1) {
      const confidence = shares[at * classes + index];
      if (confidence >= how.score_threshold && index !== how.background) candidates.push({ box, index, confidence });
    }
  });
  candidates.sort((one, other) => other.confidence - one.confidence);
  const limit = [image[1], image[0]];
  return suppress(candidates, how).map(({ box, index, confidence }) => ({
    label: labels.length ? labels[index] : String(index),
    index,
    confidence,
    box: (placed ? back(box, placed) : box).map((value, side) => Math.min(Math.max(value, 0), limit[side % 2])),
  }));
}

function check(boxes, scores, labels, how, size) {
  const [b, s] = [boxes.shape, scores.shape];
  const fits = b.length === 3 && s.length === 3 && b[0] === 1 && b[2] === 4 && s[0] === 1 && s[1] === b[1];
  if (!fits || (labels.length && s[2] !== labels.length)) {
    throw new BundleError(`boxes [${b}] and scores [${s}] for ${labels.length} labels`, {
      where: `outputs '${how.boxes}' and '${how.scores}'`,
      rule: '[1, n, 4] and [1, n, classes], with one class for each label',
      wayOut: 'use `run` for the raw outputs',
    });
  }
  const wanted = how.format === 'ltrb' ? cells(how.strides, size).length : b[1];
  if (wanted !== b[1]) {
    throw new BundleError(`${b[1]} boxes`, {
      where: `output '${how.boxes}'`,
      rule: `one for each of the ${wanted} cells of an input of ${size.join(' x ')}`,
      wayOut: 'name the strides of all levels, in the order of the boxes',
    });
  }
}

/** Centre and stride of each cell, in the order of level, row, column. */
function cells(strides, [height, width]) {
  return strides.flatMap((stride) => {
    const columns = Math.ceil(width / stride);
    return Array.from({ length: Math.ceil(height / stride) * columns }, (_, at) => [
      ((at % columns) + 0.5) * stride, (Math.floor(at / columns) + 0.5) * stride, stride,
    ]);
  });
}

/** Corners (x1, y1, x2, y2) in pixels of the model's input. */
function decode(values, how, size) {
  const centres = how.format === 'ltrb' ? cells(how.strides, size) : null;
  const factors = how.coordinates === 'relative' ? [size[1], size[0]] : [1, 1];
  return Array.from({ length: values.length / 4 }, (_, at) => {
    const [a, b, c, d] = values.subarray(4 * at, 4 * at + 4);
    let box = [a, b, c, d];
    if (how.format === 'cxcywh') box = [a - c / 2, b - d / 2, a + c / 2, b + d / 2];
    if (centres) {
      const [x, y, stride] = centres[at];
      box = [x - a * stride, y - b * stride, x + c * stride, y + d * stride];
    }
    return box.map((value, side) => value * factors[side % 2]);
  });
}

function suppress(candidates, how) {
  const kept = [];
  for (let left = candidates; left.length && kept.length < how.max_detections; ) {
    const [best, ...others] = left;
    kept.push(best);
    left = others.filter((other) => !((how.class_agnostic || other.index === best.index) && iou(best.box, other.box) > how.iou_threshold));
  }
  return kept;
}

/** Intersection over union; 0 where the union is empty. */
function iou(one, other) {
  const side = (low, high) => Math.max(high - low, 0);
  const shared =
    side(Math.max(one[0], other[0]), Math.min(one[2], other[2])) * side(Math.max(one[1], other[1]), Math.min(one[3], other[3]));
  const [first, second] = [one, other].map((box) => side(box[0], box[2]) * side(box[1], box[3]));
  const union = first + second - shared;
  return union > 0 ? shared / union : 0;
}
