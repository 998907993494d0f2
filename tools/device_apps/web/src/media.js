/** Image files, camera pictures and sound as the model takes them. */

const MAX_PIXELS = 100_000_000;

/**
 * An image file's pixels, as stored: colours are not converted, and transparency is dropped, as Python does. The one
 * thing that is done to them: a photo that says which way is up is turned, so that the model sees what you see.
 *
 * @param {Blob} file
 * @returns {Promise<ImageData>}
 */
export async function readImage(file) {
  const bitmap = await createImageBitmap(file, { colorSpaceConversion: 'none', premultiplyAlpha: 'none' });
  try {
    if (bitmap.width * bitmap.height > MAX_PIXELS) throw new Error(`an image of ${bitmap.width} x ${bitmap.height} pixels`);
    const canvas = new OffscreenCanvas(bitmap.width, bitmap.height), context = canvas.getContext('2d', { willReadFrequently: true });
    context.drawImage(bitmap, 0, 0);
    return context.getImageData(0, 0, bitmap.width, bitmap.height);
  } finally {
    bitmap.close();
  }
}

/**
 * Let the user look through the camera and take a picture; null if they close it.
 *
 * @param {{dialog: HTMLDialogElement, video: HTMLVideoElement, shoot: HTMLElement, close: HTMLElement}} elements
 * @returns {Promise<ImageData | null>}
 */
export async function takePicture({ dialog, video, shoot, close }) {
  const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment' }, audio: false });
  // A camera says how large its pictures are before it has shown one; whoever shoots then takes a black one.
  shoot.disabled = true;
  const shown = () => { shoot.disabled = false; };
  if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(shown);
  else video.addEventListener('playing', shown, { once: true });
  video.srcObject = stream;
  dialog.showModal();
  try {
    return await new Promise((resolve) => {
      shoot.onclick = () => {
        const { videoWidth: width, videoHeight: height } = video;
        const context = new OffscreenCanvas(width, height).getContext('2d', { willReadFrequently: true });
        context.drawImage(video, 0, 0);
        resolve(context.getImageData(0, 0, width, height));
      };
      close.onclick = () => resolve(null);
      dialog.oncancel = () => resolve(null);
    });
  } finally {
    dialog.close();
    video.srcObject = null;
    stream.getTracks().forEach((track) => track.stop());
  }
}

/**
 * A sound file's samples of one channel at a rate; the browser resamples where it has another.
 *
 * @param {Blob} file
 * @param {number} rate
 * @returns {Promise<Float32Array>}
 */
export async function readSound(file, rate) {
  const sound = await new OfflineAudioContext(1, 1, rate).decodeAudioData(await file.arrayBuffer());
  const channels = Array.from({ length: sound.numberOfChannels }, (_, index) => sound.getChannelData(index));
  return Float32Array.from({ length: sound.length }, (_, at) => channels.reduce((sum, channel) => sum + channel[at], 0) / channels.length);
}

/**
 * Record from the microphone.
 *
 * @param {number} seconds
 * @returns {Promise<Blob>}
 */
export async function record(seconds) {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true, video: false });
  try {
    const recorder = new MediaRecorder(stream), parts = [];
    recorder.ondataavailable = ({ data }) => parts.push(data);
    const stopped = new Promise((resolve) => { recorder.onstop = resolve; });
    recorder.start();
    setTimeout(() => recorder.stop(), 1000 * seconds);
    await stopped;
    return new Blob(parts, { type: recorder.mimeType });
  } finally {
    stream.getTracks().forEach((track) => track.stop());
  }
}

/** A picture of samples, to look at.
 * @param {Float32Array} samples
 * @returns {ImageData} */
export function waveform(samples) {
  const width = 560, height = 240, context = new OffscreenCanvas(width, height).getContext('2d');
  const dark = matchMedia('(prefers-color-scheme: dark)').matches;
  context.fillStyle = dark ? '#1e2533' : '#eef0f7';
  context.fillRect(0, 0, width, height);
  context.fillStyle = dark ? '#9c8fff' : '#5a48e8';
  const most = samples.reduce((largest, value) => Math.max(largest, Math.abs(value)), 1e-6);
  for (let x = 0; x < width; x += 4) {
    const part = samples.subarray(Math.floor((x * samples.length) / width), Math.floor(((x + 4) * samples.length) / width));
    const peak = part.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0) / most;
    context.fillRect(x, height / 2 - (peak * height * 0.42 + 1), 3, 2 * (peak * height * 0.42 + 1));
  }
  return context.getImageData(0, 0, width, height);
}
