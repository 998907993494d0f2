/** What the model answers, as the page shows it. */

const AT_LEAST = 5;

/**
 * Show an answer of any kind.
 *
 * @param {Record<string, HTMLElement>} elements
 * @param {import('edgekit').Answer} answer
 * @param {import('edgekit').Model} model
 * @param {{width: number, height: number}} canvas
 */
export function showAnswer(elements, answer, model, canvas) {
  const { head, share, rows, boxes } = described(answer, model);
  elements.label.textContent = head;
  elements.confidence.textContent = share ?? '';
  elements.top.replaceChildren(...rows.map(row));
  drawBoxes(elements.boxes, boxes ?? [], canvas);
  return share ? `${head}, ${share}` : head;
}

export function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

function described(answer, { labels, manifest }) {
  if (typeof answer === 'string') return { head: answer || 'no text', rows: [] };
  const kind = manifest.postprocessing?.kind;
  if (kind === 'detection') {
    const things = answer.length === 1 ? 'object' : 'objects';
    return { head: answer.length ? `${answer.length} ${things}` : 'nothing found', rows: answer, boxes: answer };
  }
  if (kind === 'classification') {
    const first = Array.isArray(answer) ? answer[0] : answer;
    const order = labels.map((label, index) => ({ label, index, confidence: first.probabilities[index] }));
    order.sort((one, other) => other.confidence - one.confidence);
    // The bundle says how many to show; a few more show how sure the model is.
    return { head: first.label, share: percent(first.confidence), rows: order.slice(0, Math.max(first.top.length, AT_LEAST)) };
  }
  const rows = Object.entries(answer).map(([name, { dtype, shape, data }]) => {
    const values = Array.from(data.subarray(0, 8), (value) => Number(value).toPrecision(4)).join('  ');
    return { label: `${name}: ${dtype} [${shape}]`, value: values + (data.length > 8 ? ' …' : '') };
  });
  return { head: 'Outputs', rows };
}

function row({ label, confidence, value }) {
  const line = document.createElement('li'), name = span('name', label);
  name.title = label;
  if (confidence === undefined) {
    line.className = 'plain';
    line.append(name, span('share', value));
    return line;
  }
  const bar = span('bar', ''), filled = document.createElement('i');
  bar.setAttribute('aria-hidden', 'true');
  filled.style.width = `${Math.min(100, Math.max(0, 100 * confidence))}%`;
  bar.append(filled);
  line.append(name, bar, span('share', percent(confidence)));
  return line;
}

function span(name, text) {
  const element = document.createElement('span');
  element.className = name;
  element.textContent = text;
  return element;
}

function drawBoxes(svg, detections, { width, height }) {
  const make = (name, attributes, text = '') => {
    const element = document.createElementNS('http://www.w3.org/2000/svg', name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.textContent = text;
    return element;
  };
  svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
  const size = Math.max(width, height) / 26;
  svg.replaceChildren(...detections.flatMap(({ label, confidence, box: [left, top, right, bottom] }) => [
    make('rect', { x: left, y: top, width: right - left, height: bottom - top, rx: size / 4 }),
    make('text', { x: left + size / 4, y: Math.max(top - size / 3, size), 'font-size': size }, `${label} ${percent(confidence)}`),
  ]));
}
