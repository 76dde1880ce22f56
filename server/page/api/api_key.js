// The API key: asked for where the service requires one, and kept in memory alone.

import { announce, element, find } from "../element.js";

const UNKNOWN = "This key is not known here. Check it, or ask for another.";
const KEY = /^[\x21-\x7e]+$/;
/* No browser sends other characters in a header. */

export class ApiKey {
  #service;
  #form = find("key");
  #field = find("key-text");
  #refusal = find("key-refusal");
  #keep = element("button", { type: "button", className: "quiet", hidden: true }, "Keep the present key");
  #accepted = null;

  /** `given` is called with a key to try. */
  constructor(service, { given }) {
    this.#service = service;
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      const key = this.#field.value.trim();
      if (!KEY.test(key)) return this.#refuse(UNKNOWN);
      this.#service.key = key;
      given();
    });
    this.#form.querySelector("[type=submit]").after(this.#keep);
    this.#keep.addEventListener("click", () => {
      this.#service.key = this.#accepted;
      given();
    });
    this.#field.addEventListener("input", () => this.#refuse(""));
    find("change-key").addEventListener("click", () => this.ask());
    // The documentation, opened from here, asks for the key that a browser cannot send with an address.
    addEventListener("message", (event) => {
      if (event.origin !== location.origin || event.data !== "key?" || this.#service.key === null) return;
      event.source.postMessage({ key: this.#service.key }, location.origin);
    });
  }

  get isAsked() {
    return !this.#form.hidden;
  }

  get isNeeded() {
    return this.#service.key !== null || this.isAsked;
  }

  /** Nothing else of the page can be used until the key is accepted. */
  ask({ refused = false } = {}) {
    if (refused && this.#service.key === this.#accepted) this.#accepted = null;
    this.#keep.hidden = this.#accepted === null;
    this.#form.hidden = false;
    find("change-key").hidden = true;
    document.querySelector("main").inert = true;
    this.#refuse(refused ? UNKNOWN : "");
    if (refused) this.#field.select();
    this.#field.focus();
  }

  /** To be called when the service has answered. */
  accept() {
    this.#accepted = this.#service.key;
    find("change-key").hidden = this.#service.key === null;
    if (!this.isAsked) return;
    this.#form.hidden = true;
    this.#field.value = "";
    document.querySelector("main").inert = false;
    find("file").focus();
    announce("The key is accepted.");
  }

  #refuse(text) {
    this.#refusal.textContent = text;
    this.#refusal.hidden = text === "";
    this.#field.setAttribute("aria-invalid", String(text !== ""));
  }
}
