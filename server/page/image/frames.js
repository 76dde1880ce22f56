// Which frame of the image, counted from 1 for people and from 0 for the API.

import { find } from "../element.js";

export class Frames {
  count = 1;
  #box = find("frames");
  #slider = find("frame");
  #moved;

  /** `moved` is called when the user has chosen another frame. */
  constructor({ moved }) {
    this.#moved = moved;
    this.#slider.addEventListener("input", () => this.#take());
  }

  /** From 0. */
  get chosen() {
    return Number(this.#slider.value) - 1;
  }

  set chosen(frame) {
    this.#slider.value = frame + 1;
    this.#write();
  }

  clear() {
    this.show({ frame: 0, frames: 1 });
  }

  /** Follow what the service has rendered. */
  show({ frame, frames }) {
    this.count = frames;
    this.#box.hidden = frames === 1;
    this.#slider.max = frames;
    // What a hand is on must not be moved from under it.
    if (document.activeElement !== this.#slider) this.#slider.value = frame + 1;
    this.#write();
  }

  turn(by) {
    const before = this.#slider.value;
    this.#slider.value = Number(before) + by;
    if (this.#slider.value !== before) this.#take();
  }

  #take() {
    this.#write();
    this.#moved();
  }

  #write() {
    find("frame-number").value = `${this.#slider.value} of ${this.count}`;
    this.#slider.setAttribute("aria-valuetext", `${this.#slider.value} of ${this.count}`);
  }
}
