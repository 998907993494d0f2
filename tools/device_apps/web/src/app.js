/** The page: a bundle, an input, an answer. */

import { EdgekitError, load } from 'edgekit';
import * as ort from 'onnxruntime-web/wasm';
import { showAnswer } from './answers.js';
import { Board } from './board.js';
import { readImage, readSound, record, takePicture, waveform } from './media.js';
import { keepOffline } from './offline.js';

const REMEMBERED_RUNS = 50, SPOKEN_AFTER_MS = 700;

// One file beside the page and one thread: nothing that asks for special headers.
ort.env.wasm.wasmPaths = { wasm: new URL('ort-wasm-simd-threaded.wasm', document.baseURI).href };
ort.env.wasm.numThreads = 1;

const element = (id) => document.getElementById(id);
const ids = ['name', 'status', 'label', 'confidence', 'top', 'boxes', 'spoken', 'why', 'facts', 'notes', 'text', 'hint', 'canvas', 'board'];
const elements = Object.fromEntries(ids.map((id) => [id, element(id)]));
const board = new Board({ canvas: elements.canvas, pen: element('pen'), invitation: element('invitation') }, () => predict(() => board.pixels()));

/** What the page works with now: the model, what kind of input it takes, how long its runs took. */
const now = { model: null, kind: null, runs: [], pending: null, busy: false, example: 0, speak: 0 };

// --- the bundle

/** Load a bundle and show it; one that is refused leaves the one before as it is. */
async function open(source, name) {
  elements.status.dataset.state = '';
  elements.status.textContent = `Verifying ${name} …`;
  const warnings = [];
  let model;
  try {
    model = await load(source, { runtime: ort, warn: (text) => warnings.push(text) });
  } catch (error) {
    refuse(error, name);
    return;
  }
  const before = now.model;
  Object.assign(now, { model, kind: kindOf(model.manifest), runs: [], pending: null, example: 0 });
  element('refusal').hidden = true;
  showBundle(model, warnings);
  showInput(model);
  await predictExample();
  while (now.busy) await new Promise(requestAnimationFrame); // A run of the one before may be on its way.
  await before?.close();
}

function refuse(error, name) {
  const ours = error instanceof EdgekitError;
  elements.status.dataset.state = 'bad';
  elements.status.textContent = now.model ? `${name} was refused; ${now.model.name} stays` : 'No bundle';
  element('refusal-title').textContent = `${name} was refused`;
  element('refusal-problem').textContent = ours ? error.problem : String(error.message ?? error);
  const about = ours ? { where: error.where, rule: error.rule, 'way out': error.wayOut } : {};
  element('refusal-about').replaceChildren(...pairs(about));
  element('refusal').hidden = false;
}

/** What raw input a bundle takes: image, sound, text, or (as tensors) none. */
function kindOf({ preprocessing, io: { inputs } }) {
  if (preprocessing) return { image: 'image', log_mel: 'sound', waveform: 'sound', wordpiece: 'text' }[preprocessing.kind];
  const [{ dtype, shape }] = inputs;
  return inputs.length === 1 && dtype === 'uint8' && shape.length === 3 && shape[2] === 3 ? 'image' : 'tensors';
}

function showBundle(model, warnings) {
  const { manifest, variant, choice, digest } = model;
  document.title = `${model.name} – edgekit`;
  elements.name.textContent = model.name;
  showVerified(model);
  elements.why.textContent = `${variant.name}: ${choice.reason}.`;
  elements.facts.replaceChildren(...pairs({
    bundle: model.name,
    digest: code(digest),
    variant: `${variant.name}: ${variant.precision}, for ${variant.target}`,
    others: manifest.variants.filter((each) => each.name !== variant.name).map((each) => each.name).join(', '),
    runs: 'onnxruntime-web, WebAssembly, one thread',
    size: bytes(manifest.files.get(variant.file).size),
    created: new Date(manifest.created).toLocaleString(),
  }));
  elements.notes.replaceChildren(...warnings.map((text) => {
    const note = document.createElement('p');
    note.className = 'note';
    note.textContent = text;
    return note;
  }));
  element('about').hidden = false;
}

function showVerified({ manifest }) {
  elements.status.dataset.state = 'good';
  elements.status.textContent = `verified: ${manifest.files.size + 1} files, every SHA-256`;
}

function pairs(entries) {
  return Object.entries(entries).filter(([, value]) => value).flatMap(([name, value]) => {
    const term = document.createElement('dt'), description = document.createElement('dd');
    term.textContent = name;
    description.append(value);
    return [term, description];
  });
}

function bytes(size) {
  return size < 1e6 ? `${Math.ceil(size / 1e3)} kB` : `${(size / 1e6).toFixed(1)} MB`;
}

function code(text) {
  const made = document.createElement('code');
  made.textContent = text;
  return made;
}

// --- the input

function showInput(model) {
  const { kind } = now, { preprocessing, io } = model.manifest;
  const shown = {
    choose: kind === 'image' || kind === 'sound', camera: kind === 'image', ink: kind === 'image', clear: kind !== 'tensors',
    record: kind === 'sound' && Boolean(navigator.mediaDevices), example: model.golden().length > 0, input: true, answer: true,
    board: kind === 'image' || kind === 'sound', text: kind === 'text', keys: kind === 'image',
  };
  for (const [id, visible] of Object.entries(shown)) element(id).hidden = !visible;
  const words = {
    image: ['Choose an image', 'image/*', 'Draw, drop an image, or take a picture.'],
    sound: ['Choose a sound', 'audio/*', `Record ${seconds().toFixed(1)} s, or drop a sound file.`],
    text: ['', '', 'The prediction follows what you write.'],
    tensors: ['', '', `The bundle takes prepared tensors (${io.inputs.map(({ name, shape }) => `${name} [${shape.join(', ')}]`).join(', ')}): here are its golden samples.`],
  }[kind];
  element('choose-words').textContent = words[0];
  element('input-file').accept = words[1];
  elements.hint.textContent = words[2];
  elements.canvas.setAttribute('aria-label', kind === 'image' ? 'Drawing board' : 'Waveform');
  elements.text.value = '';
  board.drawable = kind === 'image';
  elements.board.classList.toggle('wide', kind === 'sound');
  // Models of grey images were mostly trained on bright ink.
  setInk(preprocessing?.colour === 'grey');
  board.blank(preprocessing?.size ?? [1, 1]);
  element('invitation').textContent = kind === 'image' ? 'Draw here' : '';
}

function setInk(bright) {
  board.bright = bright;
  element('ink').setAttribute('aria-pressed', String(bright));
}

function seconds() {
  const { preprocessing } = now.model.manifest;
  return preprocessing?.samples ? preprocessing.samples / preprocessing.sample_rate : 2;
}

/** A file that was chosen, dropped or taken: a bundle, or an input of the model's kind. */
async function take(file) {
  if (/\.zip$/i.test(file.name ?? '')) return open(file, file.name);
  if (now.kind === 'image') return see(await readImage(file));
  if (now.kind === 'sound') return hear(await readSound(file, now.model.manifest.preprocessing.sample_rate));
  if (now.kind === 'text') {
    elements.text.value = await file.text();
    return predict(() => elements.text.value);
  }
  throw new Error('this bundle takes no files');
}

async function see(image) {
  board.show(image);
  await predict(() => board.pixels());
}

async function hear(samples) {
  board.show(waveform(samples));
  await predict(() => samples);
}

/** The next golden sample, as it went in when the bundle was made. */
async function predictExample() {
  const samples = now.model.golden();
  if (!samples.length) return;
  const { raw, inputs } = samples[now.example % samples.length];
  now.example += 1;
  if (typeof raw === 'string') elements.text.value = raw;
  else if (raw instanceof Float32Array) board.show(waveform(raw));
  else if (raw !== null) board.show(rgba(raw));
  else if (now.model.manifest.preprocessing?.kind === 'image') board.show(seenBack(Object.values(inputs)[0], now.model.manifest.preprocessing));
  else if (now.kind === 'image') board.show(rgba(Object.values(inputs)[0])); // The preprocessing is in the graph.
  await predict(() => raw ?? inputs);
}

function rgba({ shape: [height, width, channels = 1], data }) {
  const made = new Uint8ClampedArray(4 * height * width).fill(255);
  for (let pixel = 0; pixel < height * width; pixel += 1) {
    for (let c = 0; c < 3; c += 1) made[4 * pixel + c] = data[channels * pixel + (channels === 3 ? c : 0)];
  }
  return { height, width, data: made };
}

/** The picture in a prepared input, whose image the bundle did not keep. */
function seenBack({ data }, how) {
  const inRows = how.layout === 'NHWC', [height, width] = how.size, channels = how.mean.length, area = height * width;
  const bytes = Uint8ClampedArray.from({ length: area * channels }, (_, index) => {
    const c = index % channels, pixel = Math.floor(index / channels), to = how.colour === 'BGR' ? 2 - c : c;
    return (data[inRows ? pixel * channels + to : to * area + pixel] * how.std[to] + how.mean[to]) / how.scale;
  });
  return rgba({ shape: [height, width, channels], data: bytes });
}

// --- the answer

/** Predict from what `input` gives; while one prediction runs, only the last of those that were asked for waits. */
async function predict(input) {
  now.pending = input;
  if (now.busy) return;
  now.busy = true;
  try {
    while (now.pending) {
      const { model } = now, raw = now.pending();
      now.pending = null;
      const start = performance.now(), answer = await model.predict(raw), ms = performance.now() - start;
      if (model === now.model) show(answer, ms);
      await new Promise(requestAnimationFrame);
    }
  } catch (error) {
    complain(error);
  } finally {
    now.busy = false;
  }
}

function show(answer, ms) {
  if (element('refusal').hidden) showVerified(now.model); // What was wrong with an input before is so no more.
  const said = showAnswer(elements, answer, now.model, elements.canvas);
  now.runs = [...now.runs.slice(1 - REMEMBERED_RUNS), ms];
  const sorted = [...now.runs].sort((one, other) => one - other), middle = sorted.length >> 1;
  const median = sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  element('this-run').textContent = `${ms.toFixed(1)} ms`;
  element('median').textContent = `${median.toFixed(1)} ms`;
  element('median-of').textContent = `median of ${sorted.length}`;
  element('runs').textContent = Number(element('runs').textContent) + 1;
  // A screen reader would not keep up with a drawing hand.
  clearTimeout(now.speak);
  now.speak = setTimeout(() => { elements.spoken.textContent = said; }, SPOKEN_AFTER_MS);
}

function complain(error) {
  elements.label.textContent = '–';
  elements.confidence.textContent = '';
  elements.top.replaceChildren();
  elements.status.dataset.state = 'bad';
  elements.status.textContent = error instanceof EdgekitError ? `${error.problem}; ${error.rule}` : `cannot read it: ${error.message ?? error}`;
}

// --- what the user does

function listen() {
  const guarded = (action) => (event) => Promise.resolve(action(event)).catch(complain);
  const chosen = guarded(async ({ target }) => {
    const [file] = target.files;
    if (file) await (target.id === 'bundle-file' ? open(file, file.name) : take(file));
    target.value = ''; // So that the same file can be chosen again.
  });
  for (const id of ['bundle-file', 'input-file', 'capture']) element(id).addEventListener('change', chosen);
  element('example').addEventListener('click', guarded(predictExample));
  element('clear').addEventListener('click', guarded(clear));
  element('ink').addEventListener('click', guarded(() => { setInk(!board.bright); return clear(); }));
  elements.text.addEventListener('input', guarded(() => predict(() => elements.text.value)));
  element('record').addEventListener('click', guarded(async ({ target }) => {
    target.textContent = 'Listening …';
    try {
      await take(await record(seconds() + 0.2));
    } finally {
      target.textContent = 'Record';
    }
  }));
  element('camera').addEventListener('click', guarded(async () => {
    // Without a secure page there is no live picture, but phones still offer their camera.
    if (!navigator.mediaDevices) return element('capture').click();
    const view = { dialog: element('camera-view'), video: element('video'), shoot: element('shoot'), close: element('camera-close') };
    const picture = await takePicture(view);
    return picture && see(picture);
  }));
  document.addEventListener('dragover', (event) => { event.preventDefault(); elements.board.classList.add('over'); });
  document.addEventListener('dragleave', () => elements.board.classList.remove('over'));
  document.addEventListener('drop', guarded(async (event) => {
    event.preventDefault();
    elements.board.classList.remove('over');
    const [file] = event.dataTransfer.files;
    if (file) await take(file);
  }));
}

function clear() {
  elements.text.value = '';
  board.blank();
  showNothing();
}

function showNothing() {
  now.pending = null;
  clearTimeout(now.speak);
  elements.spoken.textContent = '';
  elements.label.textContent = '–';
  elements.confidence.textContent = '';
  elements.top.replaceChildren();
  elements.boxes.replaceChildren();
}

async function start() {
  listen();
  const address = new URL(new URLSearchParams(location.search).get('bundle') ?? 'model.edgekit.zip', document.baseURI);
  await open(address.href, decodeURIComponent(address.pathname.split('/').at(-1)));
  const kept = await keepOffline(address).catch(() => false);
  element('offline').textContent = kept ? 'Works offline from now on.' : '';
  document.documentElement.dataset.ready = 'yes';
}

await start();
