// The series that was chosen: the slices that will be asked about, in order and in one window, as the service renders
// them. What is no volume is refused before anything is asked.

import { announce, element, find } from "../element.js";
import { counted } from "../format.js";
import { NewestRendering } from "../image/newest_rendering.js";
import { wasStopped } from "../api/service.js";
import { SeriesControls } from "./series_controls.js";
import { SliceStack } from "./slice_stack.js";
import { thumbnail } from "../image/thumbnail.js";

const CAN_BE_TAKEN = ["missing_slices", "tilted_gantry"];

export class ChosenSeries {
  /** Its files, or its names in a source; null: none is chosen. */
  file = null;
  /** As the service rendered it; null: it is not. */
  rendered = null;
  #service;
  #changed;
  #failed;
  #removed;
  #box = find("series");
  #stack;
  #controls = new SeriesControls({
    changed: () => {
      this.#changed();
      this.#render();
    },
    removed: () => this.#remove(),
  });
  #facts = element("p", { className: "small" });
  #reading = element("p", { className: "small" }, "Reading the series…");
  #allowsIrregular = false;
  #rendering = new NewestRendering();

  /** `changed` after every choice and rendering; `failed(problem, {focus})`; `turned(index)` of the slice shown;
   * `removed` when the person has removed it. */
  constructor(service, { changed, failed, turned, removed }) {
    this.#removed = removed;
    this.#service = service;
    this.#changed = changed;
    this.#failed = failed;
    this.#stack = new SliceStack({ turned });
    this.#box.append(...this.#stack.elements, this.#reading, this.#facts, ...this.#controls.elements);
  }

  choose(sent) {
    this.clear();
    this.file = sent;
    this.#open(true);
    this.#changed();
    this.#render({ focus: true });
  }

  /** Render it once more. */
  again() {
    this.#render({ focus: true });
  }

  /** Take slices that are unevenly spaced or displaced. */
  allowIrregular() {
    this.#allowsIrregular = true;
    this.#render({ focus: true });
  }

  /** Of a request, besides the series itself. */
  get fields() {
    return { ...this.#controls.fields, ...(this.#allowsIrregular ? { allow_irregular: true } : {}) };
  }

  /** How many slices in which window, for people. */
  get caption() {
    if (this.rendered === null) return "";
    const { sampled, slice_count } = this.rendered.series;
    const window = this.#controls.caption;
    return `${sampled.length} of ${counted(slice_count, "slice")}${window ? `, ${window}` : ""}`;
  }

  /** Index of the slice that is shown. */
  get index() {
    return this.#stack.index;
  }

  async settled() {
    if (this.rendered === null && !this.#rendering.isRunning) this.#render();
    await this.#rendering.settled();
  }

  restore(fields) {
    if (this.#controls.restore(fields)) this.#render();
  }

  jump(index) {
    this.#stack.jump(index);
  }

  /** A small copy of the slice that is shown, as data URL. */
  thumbnail() {
    return thumbnail(this.#stack.image);
  }

  clear() {
    this.#rendering.abort();
    this.#busy(false);
    this.file = null;
    this.rendered = null;
    this.#allowsIrregular = false;
    this.#stack.clear();
    this.#controls.clear();
    this.#facts.textContent = "";
    this.#open(false);
  }

  #open(isOpen) {
    this.#box.hidden = !isOpen;
    this.#box.parentElement.classList.toggle("of-series", isOpen);
    for (const field of document.querySelectorAll(".of-one-image")) field.hidden = isOpen;
    for (const field of document.querySelectorAll(".of-series-only")) field.hidden = !isOpen;
  }

  #remove() {
    this.clear();
    this.#removed();
    this.#changed();
    announce("The series is removed.");
    find("file").focus();
  }

  #render(options = {}) {
    this.#rendering.start((signal) => this.#renderOnce(signal, options));
  }

  async #renderOnce(signal, { focus = false }) {
    this.rendered = null;
    this.#busy(true);
    try {
      const rendered = await this.#service.renderSeries(this.file, this.fields, signal);
      // A rendering that was overtaken never lands.
      signal.throwIfAborted();
      this.#show(rendered);
      await this.#stack.image.decode();
      signal.throwIfAborted();
      if (focus) announce(`The series is read: ${this.#facts.textContent}`);
      this.#changed();
    } catch (error) {
      if (wasStopped(error) || signal.aborted) return;
      // What was shown before is not what is chosen now.
      this.#stack.clear();
      this.#facts.textContent = "";
      if (focus && !CAN_BE_TAKEN.includes(error.code) && !error.isPassing) this.clear();
      this.#changed();
      this.#failed(error, { focus });
    } finally {
      if (!signal.aborted) this.#busy(false);
    }
  }

  #busy(isBusy) {
    this.#box.setAttribute("aria-busy", String(isBusy));
    this.#reading.hidden = !isBusy;
  }

  #show(rendered) {
    this.rendered = rendered;
    this.#stack.fill(rendered.slices, rendered.series.slice_count);
    this.#controls.show(rendered);
    this.#facts.textContent = `${facts(rendered.series)}.`;
  }
}

function facts({ ignored_files, irregular, ordered_by, sampled, slice_count, spacing }) {
  return [
    `${sampled.length} of ${counted(slice_count, "slice")}`,
    ...(spacing === null ? [] : [`${Number(spacing.toFixed(2))} mm apart`]),
    ordered_by === "position" ? "in the order of their positions" : "in the order of their numbers",
    ...(irregular ? ["unevenly spaced or displaced"] : []),
    ...(ignored_files ? [`${counted(ignored_files, "file")} without an image left out`] : []),
  ].join(", ");
}
