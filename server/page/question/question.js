// The question about the image.

import { find } from "../element.js";
import { formFields, notANumber, restoreFields } from "../api/form_fields.js";

export class Question {
  form = find("ask");
  #text = find("question");

  constructor({ changed }) {
    this.form.addEventListener("input", changed);
    this.#text.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.form.requestSubmit();
    });
  }

  get fields() {
    // In one line: what a form makes of line breaks is not what curl makes of them.
    return { question: this.#text.value.replace(/\s+/g, " ").trim(), ...formFields(this.form) };
  }

  set text(question) {
    this.#text.value = question;
    this.#text.dispatchEvent(new Event("input", { bubbles: true }));
  }

  restore({ question, ...fields }) {
    restoreFields(this.form, fields);
    this.#text.value = question;
  }

  /** Where the person should look when this cannot be sent; null: it can. */
  get lacking() {
    return this.fields.question ? notANumber(this.form) : { field: this.#text, message: "Write a question first." };
  }
}
