/** The canvas: a blank sheet to draw on, or an image. What is on it is what the model gets, pixel for pixel. */

const LONGER_SIDE = 280, STEP = 10;

export class Board {
  /**
   * @param {{canvas: HTMLCanvasElement, pen: HTMLElement, invitation: HTMLElement}} elements
   * @param {() => void} changed
   */
  constructor({ canvas, pen, invitation }, changed) {
    this.canvas = canvas;
    this.context = canvas.getContext('2d', { willReadFrequently: true });
    this.pen = pen;
    this.invitation = invitation;
    this.changed = changed;
    this.bright = false;
    this.drawable = true;
    this.at = null;
    this.listen();
  }

  /** A blank sheet in the proportions of the model's input [height, width]. */
  blank([height, width] = this.proportions ?? [1, 1]) {
    this.proportions = [height, width];
    const factor = LONGER_SIDE / Math.max(height, width);
    this.resize(Math.max(1, Math.round(height * factor)), Math.max(1, Math.round(width * factor)));
    this.context.fillStyle = this.bright ? '#000' : '#fff';
    this.context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    this.invitation.hidden = false;
    this.cursor = [this.canvas.width / 2, this.canvas.height / 2];
  }

  /** Show pixels, and let them be drawn upon. */
  show({ width, height, data }) {
    this.resize(height, width);
    this.context.putImageData(new ImageData(data, width, height), 0, 0);
    this.invitation.hidden = true;
    this.cursor = [width / 2, height / 2];
  }

  pixels() {
    return this.context.getImageData(0, 0, this.canvas.width, this.canvas.height);
  }

  resize(height, width) {
    Object.assign(this.canvas, { width, height });
    this.canvas.classList.toggle('pixels', Math.max(width, height) < 200);
    this.pen.hidden = true;
    this.down = false;
  }

  line(from, to) {
    const { context, canvas } = this;
    Object.assign(context, { lineCap: 'round', lineJoin: 'round', lineWidth: Math.max(canvas.width, canvas.height) / 13 });
    context.strokeStyle = this.bright ? '#fff' : '#111';
    context.beginPath();
    context.moveTo(...from);
    context.lineTo(...to);
    context.stroke();
    this.invitation.hidden = true;
    this.changed();
  }

  /** Where an event lies on the canvas, which is shown as large as it fits. */
  point({ clientX, clientY }) {
    const { canvas } = this, box = canvas.getBoundingClientRect(), factor = this.factor(box);
    return [
      (clientX - box.left - (box.width - canvas.width * factor) / 2) / factor,
      (clientY - box.top - (box.height - canvas.height * factor) / 2) / factor,
    ];
  }

  factor(box) {
    return Math.min(box.width / this.canvas.width, box.height / this.canvas.height);
  }

  listen() {
    const { canvas } = this;
    canvas.addEventListener('pointerdown', (event) => {
      if (event.button !== 0 || !this.drawable) return;
      canvas.setPointerCapture(event.pointerId);
      this.at = this.point(event);
      this.line(this.at, this.at);
    });
    canvas.addEventListener('pointermove', (event) => {
      if (!this.at) return;
      const to = this.point(event);
      this.line(this.at, to);
      this.at = to;
    });
    for (const name of ['pointerup', 'pointercancel']) canvas.addEventListener(name, () => { this.at = null; });
    canvas.addEventListener('keydown', (event) => this.key(event));
    canvas.addEventListener('blur', () => { this.pen.hidden = true; });
  }

  /** Arrow keys move the pen, the space bar lowers and lifts it. */
  key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (!this.drawable || (event.key !== ' ' && !moves[event.key])) return;
    event.preventDefault();
    const { canvas } = this, step = (Math.max(canvas.width, canvas.height) * STEP) / LONGER_SIDE, before = this.cursor;
    if (event.key === ' ') this.down = !this.down;
    else {
      const [x, y] = moves[event.key].map((direction) => direction * step);
      this.cursor = [Math.min(Math.max(before[0] + x, 0), canvas.width), Math.min(Math.max(before[1] + y, 0), canvas.height)];
    }
    if (this.down) this.line(before, this.cursor);
    const box = canvas.getBoundingClientRect(), factor = this.factor(box);
    this.pen.hidden = false;
    this.pen.classList.toggle('down', this.down);
    this.pen.style.left = `${(box.width - canvas.width * factor) / 2 + this.cursor[0] * factor}px`;
    this.pen.style.top = `${(box.height - canvas.height * factor) / 2 + this.cursor[1] * factor}px`;
  }
}
