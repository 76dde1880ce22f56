// The image under the hand: drag for the window, wheel for the frame, zoom, full screen.

import { find } from "../element.js";

const LARGEST = 8;
const STEP = 1.4;
const NOTCH = 40;
/* Pixels of wheel to the next frame; a touchpad sends few at a time. */
const ARROWS = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
const STRIDE = 1 / 8;
/* Of the well's sides, that an arrow key moves an enlarged image by. */

export class Viewer {
  #well = find("well");
  #image = find("shown");
  #scale = 1;
  #offset = { x: 0, y: 0 };
  #hold = null;
  #wheeled = 0;
  #windowing;
  #frames;

  constructor({ windowing, frames }) {
    this.#windowing = windowing;
    this.#frames = frames;
    this.#image.addEventListener("pointerdown", (event) => this.#take(event));
    this.#image.addEventListener("pointermove", (event) => this.#drag(event));
    for (const end of ["pointerup", "pointercancel"]) this.#image.addEventListener(end, () => this.#release());
    this.#image.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    this.#image.addEventListener("dblclick", () => this.fit());
    find("viewer").addEventListener("keydown", (event) => this.#key(event));
    find("zoom-in").addEventListener("click", () => this.#zoom(STEP));
    find("zoom-out").addEventListener("click", () => this.#zoom(1 / STEP));
    find("fit").addEventListener("click", () => this.fit());
    find("full-screen").addEventListener("click", () => this.#toggleFullScreen());
    find("full-screen").hidden = !document.fullscreenEnabled;
    document.addEventListener("fullscreenchange", () => this.#follow());
  }

  fit() {
    this.#scale = 1;
    this.#place({ x: 0, y: 0 });
  }

  #take(event) {
    // A finger scrolls the page; where the image is all there is, it does what a mouse does.
    if ((event.pointerType === "touch" && !this.#isFull) || event.button > 1) return;
    event.preventDefault();
    this.#image.setPointerCapture(event.pointerId);
    const windows = this.#windowing.isOffered && !event.shiftKey && event.button === 0;
    if (windows) this.#windowing.hold();
    this.#hold = { windows, x: event.clientX, y: event.clientY, offset: this.#offset };
  }

  #drag({ clientX, clientY }) {
    if (this.#hold === null) return;
    const { offset, windows, x, y } = this.#hold;
    const moved = { x: clientX - x, y: clientY - y };
    if (windows) this.#windowing.drag(moved.x / this.#well.clientWidth, moved.y / this.#well.clientHeight);
    else this.#place({ x: offset.x + moved.x, y: offset.y + moved.y });
  }

  #release() {
    this.#hold = null;
    this.#windowing.release();
  }

  #wheel(event) {
    const turns = this.#frames.count > 1 && !event.ctrlKey;
    if (!turns && !event.ctrlKey && !this.#isFull) return;
    event.preventDefault();
    if (!turns) return this.#zoom(Math.exp(-event.deltaY / 300), event);
    this.#wheeled += event.deltaMode === 0 ? event.deltaY : event.deltaY * NOTCH;
    const frames = Math.trunc(this.#wheeled / NOTCH);
    this.#wheeled -= frames * NOTCH;
    // A notch of a mouse's wheel is one frame, however many pixels it counts for.
    if (frames) this.#frames.turn(Math.sign(frames));
    if (Math.abs(event.deltaY) >= NOTCH) this.#wheeled = 0;
  }

  #key(event) {
    const way = ARROWS[event.key];
    if (way === undefined || this.#scale === 1 || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const { clientHeight, clientWidth } = this.#well;
    this.#place({
      x: this.#offset.x + way[0] * STRIDE * clientWidth,
      y: this.#offset.y + way[1] * STRIDE * clientHeight,
    });
  }

  /** About the point under the hand, or about the middle. */
  #zoom(factor, { clientX, clientY } = {}) {
    const box = this.#well.getBoundingClientRect();
    const at = clientX === undefined
      ? { x: 0, y: 0 }
      : { x: clientX - box.x - box.width / 2, y: clientY - box.y - box.height / 2 };
    const scale = Math.min(LARGEST, Math.max(1, this.#scale * factor));
    const ratio = scale / this.#scale;
    this.#scale = scale;
    this.#place({ x: at.x - (at.x - this.#offset.x) * ratio, y: at.y - (at.y - this.#offset.y) * ratio });
  }

  #place({ x, y }) {
    const farthest = [this.#well.clientWidth, this.#well.clientHeight].map((side) => ((this.#scale - 1) * side) / 2);
    const [left, top] = [x, y].map((value, axis) => Math.min(farthest[axis], Math.max(-farthest[axis], value)));
    this.#offset = { x: left, y: top };
    this.#image.style.transform = `translate(${left}px, ${top}px) scale(${this.#scale})`;
    for (const id of ["fit", "zoom-out"]) disable(id, this.#scale === 1, "zoom-in");
    disable("zoom-in", this.#scale === LARGEST, "zoom-out");
  }

  get #isFull() {
    return document.fullscreenElement === this.#well;
  }

  #toggleFullScreen() {
    if (this.#isFull) document.exitFullscreen();
    else this.#well.requestFullscreen();
  }

  #follow() {
    find("full-screen").setAttribute("aria-pressed", String(this.#isFull));
    this.fit();
  }
}

/** A hand on a button that is disabled goes to the `next`. */
function disable(id, isDisabled, next) {
  const button = find(id);
  const hasHand = document.activeElement === button;
  button.disabled = isDisabled;
  if (isDisabled && hasHand) find(next).focus();
}
