// Which studies to list: of a source, one by its UID, or some by modality and date.

import { element } from "../element.js";

const MODALITIES = ["CT", "MR", "CR", "DX", "MG", "US", "PT", "NM", "XA"];
const MOST = 50;
/* Studies listed at once. */

export class PickerForm {
  element = element("form", { className: "picker", autocomplete: "off", noValidate: true });
  #source = element("select", {});
  #study = element("input", { type: "text", spellcheck: false, inputMode: "decimal" });
  #modality = element("select", {}, ...["", ...MODALITIES].map((name) => new Option(name || "any", name)));
  #since = element("input", { type: "date" });
  #sourceLabel = element("label", {}, "Source ", this.#source);

  /** `searched` is called when the lists are asked for. */
  constructor({ searched }) {
    this.element.append(
      this.#sourceLabel,
      element("label", { className: "wide" }, "Study UID, if you have it ", this.#study),
      element("label", {}, "Modality ", this.#modality),
      element("label", {}, "Studies since ", this.#since),
      element("div", { className: "row wide" }, element("button", { type: "submit", className: "quiet" }, "Find")),
    );
    this.element.addEventListener("submit", (event) => {
      event.preventDefault();
      searched();
    });
  }

  offer(names) {
    const chosen = this.source;
    this.#source.replaceChildren(...names.map((name) => new Option(name, name, false, name === chosen)));
    this.#sourceLabel.hidden = names.length < 2;
  }

  get source() {
    return this.#source.value;
  }

  get study() {
    return this.#study.value.trim();
  }

  /** Of the list of studies. */
  get query() {
    return {
      limit: MOST,
      ...(this.#modality.value ? { modality: this.#modality.value } : {}),
      ...(this.#since.value ? { date: `${this.#since.value.replaceAll("-", "")}-` } : {}),
    };
  }
}
