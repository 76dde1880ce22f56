// Where an image comes from: a file, chosen, dropped or pasted, or one of the drawn samples.

import { find } from "./element.js";

export class ImageSources {
  #chosen;

  /** `chosen(blob, {modality})`: the bytes alone, so that the file's name is in nothing that is ever sent. */
  constructor({ chosen }) {
    this.#chosen = chosen;
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

  #take([file]) {
    if (file === undefined || document.querySelector("main").inert) return;
    this.#chosen(new Blob([file]), { modality: "" });
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
