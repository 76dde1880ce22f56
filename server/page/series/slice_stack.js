// Slices of a series, one under the other: a slider, the wheel and the arrow keys turn them.

import { element } from "../element.js";

const NOTCH = 40;
/* Pixels of wheel to the next slice; a touchpad sends few at a time. */
const STEPS = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1, PageUp: -5, PageDown: 5 };

export class SliceStack {
  #slices = [];
  #total = 0;
  #wheeled = 0;
  #turned;
  #image = element("img", { alt: "", draggable: false });
  #caption = element("p", { className: "stack-caption" });
  #slider = element("input", { type: "range", min: 1, step: 1, "aria-label": "Slice" });
  #number = element("output");
  #well = element(
    "div",
    { className: "well stack", tabIndex: 0, role: "group", "aria-label": "Slices; arrow keys or the wheel turn them" },
    this.#image,
    this.#caption,
  );

  /** `turned(index)` is called with the index of the slice that is shown. */
  constructor({ turned }) {
    this.#turned = turned;
    this.#slider.addEventListener("input", () => this.#show());
    this.#well.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    this.#well.addEventListener("keydown", (event) => this.#key(event));
  }

  get elements() {
    const slider = element("div", { className: "slider stack-slider" }, this.#slider, this.#number);
    return [this.#well, slider];
  }

  /** Index of the slice that is shown, in the order of the series. */
  get index() {
    return this.#slices[this.#slider.value - 1]?.index;
  }

  get image() {
    return this.#image;
  }

  /** `total` is the number of slices of the series. */
  fill(slices, total) {
    const { index } = this;
    this.#slices = slices;
    this.#total = total;
    this.#slider.max = slices.length;
    this.jump(index ?? slices[Math.floor(slices.length / 2)].index);
  }

  /** Show the slice with this index, or the one nearest to it. */
  jump(index) {
    const distances = this.#slices.map((slice) => Math.abs(slice.index - index));
    this.#slider.value = distances.indexOf(Math.min(...distances)) + 1;
    this.#show();
  }

  clear() {
    this.#slices = [];
    this.#image.removeAttribute("src");
    this.#image.alt = "";
    this.#caption.textContent = "";
  }

  #turn(by) {
    this.#slider.value = Number(this.#slider.value) + by;
    this.#show();
  }

  #show() {
    const slice = this.#slices[this.#slider.value - 1];
    if (slice === undefined) return;
    const number = `${slice.index + 1} of ${this.#total}`;
    Object.assign(this.#image, { src: slice.image, alt: `Slice ${number}` });
    this.#slider.setAttribute("aria-valuetext", number);
    this.#number.textContent = number;
    const place = slice.position === null ? [] : [`${Number(slice.position.toFixed(1))} mm from the first`];
    this.#caption.textContent = [`Slice ${number}`, ...place].join(", ");
    this.#turned(slice.index);
  }

  #wheel(event) {
    if (event.ctrlKey) return;
    event.preventDefault();
    this.#wheeled += event.deltaMode === 0 ? event.deltaY : event.deltaY * NOTCH;
    if (Math.abs(this.#wheeled) < NOTCH) return;
    this.#turn(Math.sign(this.#wheeled));
    this.#wheeled = 0;
  }

  #key(event) {
    const by = { ...STEPS, Home: -this.#slices.length, End: this.#slices.length }[event.key];
    if (by === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    this.#turn(by);
  }
}
