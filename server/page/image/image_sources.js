// Where an image or a series comes from: files, chosen, dropped or pasted, or one of the drawn samples.

import { find } from "../element.js";

export class ImageSources {
  #chosen;
  #several;

  /** `chosen(blob, {modality})`, or `several(blobs)` for files or an archive: the bytes alone, so that a file's name is
   * in nothing that is ever sent. */
  constructor({ chosen, several }) {
    this.#chosen = chosen;
    this.#several = several;
    find("file").addEventListener("change", (event) => {
      this.#take(event.target.files);
      event.target.value = "";
    });
    document.addEventListener("paste", (event) => {
      if (event.clipboardData?.files.length) this.#take(event.clipboardData.files);
    });
    this.#takeDrops();
    for (const button of find("samples").querySelectorAll("button")) {
      button.addEventListener("click", () => this.#fetch(button));
    }
  }

  async #take(files) {
    const blobs = [...files].map((file) => new Blob([file]));
    if (blobs.length === 0 || document.querySelector("main").inert) return;
    if (blobs.length > 1 || (await isArchive(blobs[0]))) this.#several(blobs);
    else this.#chosen(blobs[0], { modality: "" });
  }

  async #fetch({ value, dataset }) {
    const response = await fetch(value, { credentials: "omit" });
    if (response.ok) this.#chosen(await response.blob(), { modality: dataset.modality });
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
      this.#take(event.dataTransfer.files);
    });
  }
}

/** Whether the file is a ZIP archive. */
const isArchive = async (blob) => (await blob.slice(0, 4).text()) === "PK\u0003\u0004";
