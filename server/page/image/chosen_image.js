// The image as the service renders it.
//
// No browser reads DICOM. The service renders every format, so that all take one way, what is shown is what will be
// asked about, and a file that the service refuses is refused before anything is asked.

import { announce, find } from "../element.js";
import { capital } from "../format.js";
import { Frames } from "./frames.js";
import { NewestRendering } from "./newest_rendering.js";
import { thumbnail } from "./thumbnail.js";
import { wasStopped } from "../api/service.js";
import { Viewer } from "./viewer.js";
import { Windowing, windowCaption } from "./windowing.js";

const REST = 120;
/* Milliseconds between two renderings while a slider moves: each costs the service a decoding. */

export class ChosenImage {
  /** Its bytes; null: nothing is chosen. */
  file = null;
  /** What is shown, as the service rendered it; null: nothing is. */
  rendered = null;
  #service;
  #changed;
  #failed;
  #shown = find("shown");
  #windowing = new Windowing({ moved: () => this.#renderSoon() });
  #frames = new Frames({ moved: () => this.#renderSoon() });
  #viewer = new Viewer({ windowing: this.#windowing, frames: this.#frames });
  #allowsUniform = false;
  #caption = "";
  #rendering = new NewestRendering();
  #waiting = null;

  /** `changed` after every choice and rendering; `failed(problem, {focus})` when there is none. */
  constructor(service, { changed, failed }) {
    this.#service = service;
    this.#changed = changed;
    this.#failed = failed;
    find("remove").addEventListener("click", () => this.#remove());
    for (const view of document.getElementsByName("view")) view.addEventListener("change", () => this.#render());
  }

  choose(blob) {
    this.#clear();
    this.file = blob;
    this.#changed();
    this.#render({ focus: true });
  }

  clear() {
    this.#clear();
    this.#changed();
  }

  /** Render it once more. */
  again() {
    this.#render({ focus: true });
  }

  /** Show the image although it is one shade. */
  allowUniform() {
    this.#allowsUniform = true;
    this.#render({ focus: true });
  }

  /** Of a request, besides the image itself. */
  get fields() {
    const frame = this.#frames.chosen;
    return {
      ...(this.#windowing.chosen === null ? {} : { window: this.#windowing.chosen }),
      ...(frame ? { frame } : {}),
      ...(this.#allowsUniform ? { allow_uniform: true } : {}),
    };
  }

  /** Which frame and window is shown, for people; empty where there is nothing to choose. */
  get caption() {
    return this.#caption;
  }

  /** Wait until what is shown is what `fields` say. */
  async settled() {
    if (this.rendered === null && !this.#rendering.isRunning) this.#render();
    do {
      if (this.#waiting !== null) this.#render();
      await this.#rendering.settled();
    } while (this.#waiting !== null);
  }

  restore({ frame = 0, window = null }) {
    this.#frames.chosen = frame;
    this.#windowing.chosen = window;
    this.#render();
  }

  /** A small copy of what is shown, as data URL. */
  thumbnail() {
    return thumbnail(this.#shown);
  }

  #remove() {
    this.#clear();
    this.#changed();
    announce("The image is removed.");
    find("file").focus();
  }

  #clear() {
    this.#rendering.abort();
    clearTimeout(this.#waiting);
    this.#waiting = null;
    this.file = null;
    this.#allowsUniform = false;
    this.#windowing.clear();
    this.#frames.clear();
    this.#viewer.fit();
    this.#hide();
    this.#busy(false);
    document.getElementsByName("view")[0].checked = true;
  }

  #hide() {
    this.rendered = null;
    this.#caption = "";
    this.#shown.removeAttribute("src");
    for (const id of ["viewer", "shown"]) find(id).hidden = true;
    for (const id of ["facts", "hint"]) find(id).textContent = "";
  }

  #renderSoon() {
    this.#changed();
    this.#waiting ??= setTimeout(() => this.#render(), REST);
  }

  #render(options = {}) {
    clearTimeout(this.#waiting);
    this.#waiting = null;
    this.#rendering.start((signal) => this.#renderOnce(signal, options));
  }

  async #renderOnce(signal, { focus = false }) {
    const view = document.querySelector("input[name=view]:checked").value;
    const { fields } = this;
    this.#busy(true);
    try {
      const rendered = await this.#service.render(this.file, { ...fields, view }, signal);
      // A rendering that was overtaken never lands.
      signal.throwIfAborted();
      await this.#show(rendered, { view, window: fields.window });
      signal.throwIfAborted();
      if (focus) announce(`The image is read: ${summary(rendered)}.`);
      this.#changed();
    } catch (error) {
      if (wasStopped(error) || signal.aborted) return;
      // What was shown before is not what is chosen now.
      this.#hide();
      if (focus && error.code !== "uniform_image" && !error.isPassing) this.#clear();
      this.#changed();
      this.#failed(error, { focus });
    } finally {
      if (!signal.aborted) this.#busy(false);
    }
  }

  #busy(busy) {
    find("well").setAttribute("aria-busy", String(busy));
    find("reading").textContent = busy ? "Reading…" : "Not shown";
    find("reading").hidden = this.file === null || this.rendered !== null;
    find("about").hidden = this.file === null;
    for (const id of ["invitation", "samples"]) find(id).hidden = this.file !== null;
  }

  async #show(rendered, { view, window }) {
    this.rendered = rendered;
    this.#caption = captionOf(rendered, window);
    Object.assign(this.#shown, {
      src: rendered.image,
      alt: `The image you chose, ${view === "model" ? "as the model sees it" : summary(rendered)}`,
    });
    this.#shown.classList.toggle("pixels", view === "model");
    for (const id of ["viewer", "shown"]) find(id).hidden = false;
    find("facts").textContent = summary(rendered);
    // What another rendering waits for must not be moved back.
    if (this.#waiting === null) this.#frames.show(rendered.rendering);
    find("as-series").hidden = rendered.rendering.format !== "DICOM" || rendered.rendering.frames === 1;
    this.#windowing.show(rendered);
    find("viewer-caption").textContent = capital(this.caption);
    find("hint").textContent = this.#hint();
    await this.#shown.decode();
  }

  #hint() {
    const drag = this.#windowing.isOffered ? "Drag: window. Shift and drag: move." : "Drag: move.";
    return `${drag} ${this.#frames.count > 1 ? "Wheel: frame. " : ""}Ctrl and wheel: zoom.`;
  }
}

/** Not of what is chosen by now: that may be another frame. */
function captionOf(rendered, window = null) {
  const { frame, frames } = rendered.rendering;
  const place = frames > 1 ? `frame ${frame + 1} of ${frames}` : "";
  return [place, windowCaption(rendered, window)].filter(Boolean).join(", ");
}

function summary({ width, height, rendering }) {
  const frames = rendering.frames > 1 ? `, ${rendering.frames} frames` : "";
  return `${rendering.format}, ${width} × ${height} pixels${frames}`;
}
