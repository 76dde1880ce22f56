// Where an image or a series comes from: files, chosen, dropped or pasted, or one of the drawn samples.

import { areReadable } from "../api/request_body.js";
import { find } from "../element.js";
import { Problem } from "../api/problem.js";
import { wasStopped } from "../api/service.js";

export class ImageSources {
  #chosen;
  #several;
  #failed;
  #running = null;

  /** `chosen(blob, {modality})`, or `several(blobs)` for files or an archive: the bytes alone, so that a file's name is
   * in nothing that is ever sent. `failed(problem, {focus})` when there is nothing to choose. */
  constructor({ chosen, several, failed }) {
    this.#chosen = chosen;
    this.#several = several;
    this.#failed = failed;
    find("file").addEventListener("change", (event) => {
      this.#take(event.target.files);
      event.target.value = "";
    });
    document.addEventListener("paste", (event) => {
      const { files = [], types = [] } = event.clipboardData ?? {};
      // With text from a spreadsheet comes a picture of its cells.
      if (types.includes("text/plain") && takesText(event.target)) return;
      if (files.length) this.#take(files);
    });
    this.#takeDrops();
    for (const button of find("samples").querySelectorAll("button")) {
      button.addEventListener("click", () => this.#fetch(button));
    }
  }

  /** Something else has been chosen than what is still on its way. */
  abort() {
    this.#running?.abort();
  }

  #take(files) {
    const blobs = [...files].map((file) => new Blob([file]));
    if (blobs.length === 0 || document.querySelector("main").inert) return;
    this.#newest(async () => {
      if (!(await areReadable(blobs))) throw Problem.ofFile();
      const isSeries = blobs.length > 1 || (await isArchive(blobs[0]));
      return () => (isSeries ? this.#several(blobs) : this.#chosen(blobs[0], { modality: "" }));
    });
  }

  #fetch({ value, dataset }) {
    this.#newest(async (signal) => {
      const response = await fetch(value, { credentials: "omit", signal });
      if (!response.ok) throw await Problem.of(response);
      const blob = await response.blob();
      return () => this.#chosen(blob, { modality: dataset.modality });
    });
  }

  /** Do what `read(signal)` returns, unless something else has been chosen meanwhile. */
  async #newest(read) {
    this.abort();
    const { signal } = (this.#running = new AbortController());
    try {
      const choose = await read(signal);
      if (!signal.aborted) choose();
    } catch (error) {
      if (!wasStopped(error) && !signal.aborted) this.#failed(Problem.from(error), { focus: true });
    }
  }

  #takeDrops() {
    const well = find("well");
    // Anywhere: a browser would leave the page for a file that falls beside the well.
    document.addEventListener("dragover", (event) => {
      if (isText(event)) return;
      event.preventDefault();
      well.classList.toggle("over", event.dataTransfer.types.includes("Files"));
    });
    document.addEventListener("dragleave", (event) => {
      if (event.relatedTarget === null) well.classList.remove("over");
    });
    document.addEventListener("drop", (event) => {
      if (isText(event)) return;
      event.preventDefault();
      well.classList.remove("over");
      this.#take(event.dataTransfer.files);
    });
  }
}

const takesText = (target) => target instanceof Element && target.matches(":read-write");

/** Whether the browser puts what is dragged into a field. */
const isText = ({ dataTransfer, target }) => !dataTransfer.types.includes("Files") && takesText(target);

/** Whether the file is a ZIP archive. */
const isArchive = async (blob) => (await blob.slice(0, 4).text()) === "PK\u0003\u0004";
