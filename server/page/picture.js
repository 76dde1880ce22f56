// The image: chosen, dropped or pasted, and shown as the service renders it.
//
// No browser reads DICOM. The service renders every format, so that all take one way, what is shown is what will be
// asked about, and a file that the service refuses is refused before anything is asked.

import { announce, find } from "./element.js";
import { wasStopped } from "./service.js";
import { Windowing } from "./windowing.js";

const REST = 120;
/* Milliseconds for which a slider must lie still before it costs the service a decoding. */

export class Picture {
  /** What was chosen; null: nothing yet. */
  file = null;
  /** The service's last rendering of it. */
  rendered = null;
  #service;
  #changed;
  #failed;
  #windowing = new Windowing({ moved: () => this.#renderSoon() });
  #running = null;
  #waiting = 0;

  /** `changed` after a choice or a rendering; `failed(problem, {focus})` when there is none. */
  constructor(service, { changed, failed }) {
    this.#service = service;
    this.#changed = changed;
    this.#failed = failed;
    find("file").addEventListener("change", (event) => this.#choose(event.target.files));
    find("remove").addEventListener("click", () => this.#remove());
    find("frame").addEventListener("input", () => this.#renderSoon());
    for (const view of document.getElementsByName("view")) view.addEventListener("change", () => this.#render());
    this.#takeDrops();
    document.addEventListener("paste", (event) => {
      if (event.clipboardData?.files.length) this.#choose(event.clipboardData.files);
    });
  }

  /** Of a request, besides the image itself. */
  get fields() {
    const frame = Number(find("frame").value);
    return {
      ...(this.#windowing.chosen === null ? {} : { window: this.#windowing.chosen }),
      ...(frame ? { frame } : {}),
    };
  }

  #takeDrops() {
    const well = find("well");
    // Anywhere: a browser would leave the page for a file that falls beside the well.
    document.addEventListener("dragover", (event) => {
      event.preventDefault();
      well.classList.add("over");
    });
    document.addEventListener("dragleave", (event) => {
      if (event.relatedTarget === null) well.classList.remove("over");
    });
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      well.classList.remove("over");
      this.#choose(event.dataTransfer.files);
    });
  }

  #choose([chosen]) {
    if (chosen === undefined) return;
    this.#clear();
    // The bytes alone: the file's name is in nothing that is ever sent.
    this.file = new Blob([chosen]);
    this.#changed();
    this.#render({ focus: true });
  }

  #remove() {
    this.#clear();
    this.#changed();
    announce("The image is removed.");
    find("file").focus();
  }

  #clear() {
    this.#running?.abort();
    clearTimeout(this.#waiting);
    this.file = this.rendered = null;
    this.#windowing.clear();
    Object.assign(find("frame"), { value: 0, max: 0 });
    find("file").value = "";
    find("shown").removeAttribute("src");
    for (const id of ["shown", "about", "frames"]) find(id).hidden = true;
    find("invitation").hidden = false;
    document.getElementsByName("view")[0].checked = true;
  }

  #renderSoon() {
    find("frames").querySelector("output").value = find("frame").value;
    this.#changed();
    clearTimeout(this.#waiting);
    this.#waiting = setTimeout(() => this.#render(), REST);
  }

  async #render({ focus = false } = {}) {
    this.#running?.abort();
    const running = (this.#running = new AbortController());
    const view = document.querySelector("input[name=view]:checked").value;
    this.#busy(true);
    try {
      const rendered = await this.#service.render(this.file, { ...this.fields, view }, running.signal);
      this.rendered = rendered;
      this.#show(rendered, view);
      if (focus) announce(`The image is read: ${summary(rendered)}.`);
      this.#changed();
    } catch (error) {
      if (wasStopped(error)) return;
      if (focus) this.#clear();
      this.#changed();
      this.#failed(error, { focus });
    } finally {
      if (this.#running === running) this.#busy(false);
    }
  }

  #busy(busy) {
    find("well").setAttribute("aria-busy", String(busy));
    find("reading").hidden = !busy || this.rendered !== null;
    if (this.file !== null) find("invitation").hidden = true;
  }

  #show(rendered, view) {
    const { frame, frames } = rendered.rendering;
    Object.assign(find("shown"), {
      src: rendered.image,
      alt: `The image you chose, ${view === "model" ? "as the model sees it" : summary(rendered)}`,
      hidden: false,
    });
    find("shown").classList.toggle("pixels", view === "model");
    find("about").hidden = false;
    find("facts").textContent = summary(rendered);
    find("frames").hidden = frames === 1;
    find("frame-legend").textContent = `Frame, 0 to ${frames - 1}`;
    find("frame").max = frames - 1;
    if (document.activeElement !== find("frame")) {
      find("frame").value = frame;
      find("frames").querySelector("output").value = frame;
    }
    this.#windowing.show(rendered);
  }
}

function summary({ width, height, rendering }) {
  const frames = rendering.frames > 1 ? `, ${rendering.frames} frames` : "";
  return `${rendering.format}, ${width} × ${height} pixels${frames}`;
}
