// The checkpoint's model card: read once, opened over the page.

import { element, find } from "../element.js";
import { markdown } from "./markdown.js";
import { Problem } from "../api/problem.js";

export class ModelCard {
  #service;
  #blocks = null;
  #dialog = find("card");

  constructor(service) {
    this.#service = service;
    find("model-card").addEventListener("click", () => this.#open());
    find("card-close").addEventListener("click", () => this.#dialog.close());
    this.#dialog.addEventListener("click", (event) => {
      if (event.target === this.#dialog) this.#dialog.close();
    });
  }

  /** Another checkpoint may be served than the one whose card was read. */
  forget() {
    this.#blocks = null;
  }

  /** What stands before the card's first section: `limits` in sentences, `more` as elements. */
  async opening() {
    const blocks = await this.#read();
    const first = blocks.findIndex(({ tagName }) => tagName === "H2") + 1;
    const end = blocks.findIndex(({ tagName }, index) => index >= first && /^H\d$/.test(tagName));
    const opening = blocks.slice(first, end === -1 ? undefined : end);
    const lists = opening.filter(({ tagName }) => tagName === "UL");
    // The first point says what can be asked.
    const paragraphs = opening.filter(({ tagName }) => tagName === "P");
    const told = [...paragraphs, ...lists.slice(0, 1).map((list) => list.firstChild)];
    return {
      limits: told.map(({ textContent }) => textContent).join(" "),
      more: lists.map((list) => list.cloneNode(true)),
    };
  }

  /** Empty where the checkpoint came without a card. */
  async #read() {
    if (this.#blocks !== null) return this.#blocks;
    try {
      this.#blocks = markdown(await this.#service.modelCard());
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      return [];
    }
    return this.#blocks;
  }

  async #open() {
    const blocks = await this.#read();
    const none = element("p", {}, "This checkpoint came without a model card, or it cannot be read.");
    find("card-text").replaceChildren(...(blocks.length ? blocks : [none]));
    this.#dialog.showModal();
    this.#dialog.scrollTop = 0;
  }
}
