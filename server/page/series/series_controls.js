// How a series is looked at: the number of slices, and one window for all.

import { element, find } from "../element.js";

export class SeriesControls {
  #window = null;
  #changed;
  #presets = element("div", { className: "chips", role: "group", "aria-label": "Window of all slices" });
  #slices = element("input", { type: "number", min: 1, step: 1 });
  #buttons = element("div", { className: "row" });

  /** `changed` when another window or number is chosen. */
  constructor({ changed, removed }) {
    this.#changed = changed;
    this.#slices.addEventListener("change", () => {
      // What is no number is not sent, so it is not shown either.
      if (this.#slices.validity.badInput) this.#slices.value = "";
      this.#changed();
    });
    const another = element("button", { type: "button", className: "quiet" }, "Choose another");
    another.addEventListener("click", () => find("file").click());
    const remove = element("button", { type: "button", className: "quiet" }, "Remove");
    remove.addEventListener("click", removed);
    this.#buttons.append(another, remove);
  }

  get elements() {
    const label = element("label", { className: "slice-count" }, "Slices to look at ", this.#slices);
    return [this.#presets, label, this.#buttons];
  }

  /** Of a request. */
  get fields() {
    return {
      ...(this.#slices.value !== "" ? { slices: Number(this.#slices.value) } : {}),
      ...(this.#window === null ? {} : { window: this.#window }),
    };
  }

  /** For people. */
  get caption() {
    if (this.#presets.hidden) return "";
    return this.#window === null ? "window of the middle slice" : `window ${words(this.#window)}`;
  }

  /** Return whether the fields of another request changed anything. */
  restore({ slices = "", window = null }) {
    const isSame = this.#slices.value === String(slices) && this.#window === window;
    this.#slices.value = slices;
    this.#window = window;
    this.#press();
    return !isSame;
  }

  clear() {
    this.#slices.value = "";
    this.#window = null;
    this.#presets.hidden = true;
  }

  /** Follow what the service has rendered. */
  show({ series, windowing }) {
    this.#slices.placeholder = series.sampled.length;
    this.#presets.hidden = windowing === null;
    if (windowing === null) return;
    const names = [null, "full", ...windowing.presets];
    // Where a hand is, its button stays.
    if (this.#presets.children.length !== names.length) {
      this.#presets.replaceChildren(...names.map((name) => this.#preset(name)));
    }
    this.#press();
  }

  #preset(name) {
    const text = name === null ? "the middle slice's own" : words(name);
    const button = element("button", { type: "button", className: "chip", value: name ?? "" }, text);
    button.addEventListener("click", () => {
      this.#window = name;
      this.#press();
      this.#changed();
    });
    return button;
  }

  #press() {
    for (const button of this.#presets.children) {
      button.setAttribute("aria-pressed", String(button.value === (this.#window ?? "")));
    }
  }
}

const words = (name) => (name === "full" ? "full range" : name.replaceAll("_", " "));
