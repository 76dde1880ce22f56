// The classes to choose from: each a chip that can be taken away.

import { announce, element, find } from "../element.js";
import { formFields, notANumber, restoreFields } from "../api/form_fields.js";

const MODES = {
  likelihood: "How likely the model would answer exactly this label.",
  choice: "The model chooses a letter; the letters change places, so that none is preferred for its place.",
  multi_label: "The model is asked about each label alone; several can be present, or none.",
};

export class Labels {
  form = find("classify");
  #labels = [];
  #list = find("labels");
  #input = find("label");
  #changed;

  constructor({ changed }) {
    this.#changed = changed;
    this.form.addEventListener("input", (event) => {
      if (event.target === this.#input && /[,\n]/.test(this.#input.value)) this.#add();
      this.#offerOptions();
      changed();
    });
    this.#input.addEventListener("keydown", (event) => {
      if (event.isComposing) return;
      if (event.key === "Enter" && this.#input.value.trim()) {
        event.preventDefault();
        this.#add();
      } else if (event.key === "Backspace" && this.#input.value === "" && this.#labels.length) {
        this.#remove(this.#labels.length - 1);
      }
    });
    this.#input.addEventListener("paste", (event) => {
      const text = event.clipboardData?.getData("text") ?? "";
      if (!text.includes("\n")) return;
      event.preventDefault();
      this.#add(text);
    });
    this.#offerOptions();
  }

  get fields() {
    const { mode, ...rest } = formFields(this.form);
    const pending = this.#input.value.trim();
    const labels = pending && !this.#labels.includes(pending) ? [...this.#labels, pending] : this.#labels;
    return { labels, ...(mode === "likelihood" ? {} : { mode }), ...rest };
  }

  set all(labels) {
    this.#labels = [...labels];
    this.#show();
    announce(`Labels: ${labels.join(", ")}.`);
  }

  restore({ labels, ...fields }) {
    restoreFields(this.form, fields);
    this.#labels = [...labels];
    this.#offerOptions();
    this.#show();
  }

  get lacking() {
    const { labels, mode } = this.fields;
    const least = mode === "multi_label" ? 1 : 2;
    const message = least === 1 ? "Add a label first." : "Add at least two labels first.";
    return labels.length >= least ? notANumber(this.form) : { field: this.#input, message };
  }

  #add(text = this.#input.value) {
    const named = text.split(/[,\n]/).map((label) => label.trim()).filter(Boolean);
    this.#input.value = "";
    this.#labels = [...new Set([...this.#labels, ...named])];
    this.#show();
    announce(`Added ${named.join(", ")}.`);
  }

  #remove(index) {
    const [gone] = this.#labels.splice(index, 1);
    this.#show();
    announce(`Removed ${gone}.`);
    (this.#list.querySelectorAll("button")[index] ?? this.#input).focus();
  }

  #show() {
    this.#list.replaceChildren(...this.#labels.map((label, index) => {
      const button = element("button", { type: "button", "aria-label": `Remove ${label}` }, "×");
      button.addEventListener("click", () => this.#remove(index));
      return element("li", { className: "chip held" }, label, button);
    }));
    this.#changed();
  }

  #offerOptions() {
    const mode = find("mode").value;
    find("mode-note").textContent = MODES[mode];
    for (const shown of ["choice", "likelihood"]) {
      for (const label of this.form.querySelectorAll(`.for-${shown}`)) {
        label.hidden = mode !== shown;
      }
    }
    this.form.querySelector("[name=question]").closest("label").hidden = mode === "multi_label";
  }
}
