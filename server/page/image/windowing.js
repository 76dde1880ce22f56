// Which grey values become black to white: named windows, and two sliders with their exact numbers.

import { element, find } from "../element.js";
import { exact as written } from "../format.js";

const LARGEST = 1e7;
/* The service takes no number beyond. */

export class Windowing {
  #chosen = null;
  #box = find("windowing");
  #note = find("window-note");
  #pairs = ["centre", "width"].map((name) => ({ slider: find(name), exact: find(`${name}-exact`) }));
  #decimals = 0;
  #held = [0, 1];
  #taken = [0, 1];
  /* Centre and width that the sliders last stood for. */
  #isHeld = false;
  #moved;

  /** `moved` is called when the user has chosen another window. */
  constructor({ moved }) {
    this.#moved = moved;
    for (const { slider, exact } of this.#pairs) {
      slider.addEventListener("input", () => {
        exact.value = slider.value;
        this.#take();
      });
      exact.addEventListener("input", () => {
        if (exact.value === "") return;
        slider.value = exact.value;
        this.#take();
      });
      // What is no window gives way to the last one that was.
      exact.addEventListener("change", () => this.#pairs.forEach((pair, at) => this.#move(pair, this.#taken[at])));
    }
  }

  /** As the API's field `window`; null: what the file says. */
  get chosen() {
    return this.#chosen;
  }

  set chosen(text) {
    this.#chosen = text;
    this.#press();
  }

  get isOffered() {
    return !this.#box.hidden;
  }

  clear() {
    this.#chosen = null;
    this.#box.hidden = true;
  }

  /** Remember from where a hand on the image moves the window. */
  hold() {
    this.#isHeld = true;
    this.#held = this.#taken;
  }

  release() {
    this.#isHeld = false;
  }

  /** Shares of the image's width, which widens, and of its height, which raises the centre. */
  drag(across, down) {
    const [centre, width] = this.#held;
    const [forCentre, forWidth] = this.#pairs;
    const span = Number(forWidth.slider.max);
    this.#move(forCentre, centre + down * span);
    this.#move(forWidth, Math.max(Number(forWidth.slider.min), width + across * span));
    this.#take();
  }

  /** Follow what the service has rendered. */
  show({ rendering, windowing }) {
    this.#box.hidden = windowing === null;
    if (windowing === null) return;
    this.#offer(["file", "full", ...windowing.presets]);
    const { smallest, largest } = windowing;
    const [applied] = rendering.windows;
    const centre = applied?.centre ?? (smallest + largest) / 2;
    const width = applied?.width || largest - smallest || 1;
    this.#note.textContent = described(applied, windowing, this.#chosen);
    // What a hand is on must not be moved from under it.
    if (this.#isExact() && this.#hasHand()) return;
    const span = Math.max(largest - smallest, width);
    const step = span >= 100 ? 1 : 10 ** Math.max(-6, Math.floor(Math.log10(span / 100)));
    this.#decimals = Math.max(0, -Math.log10(step));
    const [forCentre, forWidth] = this.#pairs;
    this.#set(forCentre, centre, { min: Math.min(smallest, centre), max: Math.max(largest, centre), step });
    this.#set(forWidth, width, { min: step, max: span, step });
    this.#taken = [centre, width];
  }

  #set({ slider, exact }, value, { min, max, step }) {
    const [low, high] = [Math.max(min, -LARGEST), Math.min(max, LARGEST)].map((bound) => this.#written(bound));
    Object.assign(slider, { min: low, max: high, step });
    slider.value = value;
    exact.value = this.#written(value);
  }

  #move({ slider, exact }, value) {
    exact.value = this.#written(value);
    slider.value = exact.value;
  }

  #take() {
    const typed = this.#pairs.map(({ exact }, at) => (exact.value === "" ? this.#taken[at] : Number(exact.value)));
    const [centre, width] = typed;
    if (!(width > 0) || Math.max(Math.abs(centre), width) > LARGEST) return;
    this.#taken = typed;
    this.#choose(`${this.#written(centre)}/${this.#written(width)}`);
  }

  #choose(text) {
    this.chosen = text === "file" ? null : text;
    this.#moved();
  }

  #isExact() {
    return this.#chosen?.includes("/");
  }

  #hasHand() {
    return this.#isHeld || this.#pairs.some((pair) => Object.values(pair).includes(document.activeElement));
  }

  #offer(names) {
    const list = find("presets");
    if (list.children.length !== names.length) {
      list.replaceChildren(...names.map((name) => {
        const button = element("button", { type: "button", className: "chip", value: name }, words(name));
        button.addEventListener("click", () => this.#choose(name));
        return button;
      }));
    }
    this.#press();
  }

  #press() {
    for (const button of find("presets").children) {
      button.setAttribute("aria-pressed", String(button.value === (this.#chosen ?? "file")));
    }
  }

  #written(value) {
    // As many decimals as the sliders have steps for, but no fewer than a file's own number needs.
    return String(Number(value.toFixed(Math.max(this.#decimals, 2))));
  }
}

/** Of a rendering with the field `chosen`, for people; null where it had none. Empty for an image without windows. */
export function windowCaption({ rendering, windowing }, chosen) {
  if (windowing === null) return "";
  if (chosen !== null) return `window ${words(chosen)}`;
  const [applied] = rendering.windows;
  if (applied === undefined) return "values as stored";
  return applied.source === "full" ? "full range" : "file's window";
}

const words = (name) => ({ file: "the file's own", full: "full range" })[name] ?? name.replaceAll("_", " ");

function described(applied, { smallest, largest, presets }, chosen) {
  const unit = presets.length ? " HU" : "";
  const values = `Values from ${written(smallest)} to ${written(largest)}${unit}.`;
  if (applied === undefined) return `${values} Shown as they are stored.`;
  if (chosen === null && applied.source === "full") return `${values} The file states no usable window.`;
  if (applied.centre === null) return `${values} Shown through a table that the file brings along.`;
  return values;
}
