// What is served and whether it answers; and the key, where one is asked for.

import { announce, element, find } from "./element.js";
import { Problem } from "./problem.js";

const AGAIN = 2000;
/* Milliseconds between two looks at a service that still loads. */

export class Served {
  /** Null until the service has said what it is. */
  metadata = null;
  #service;
  #known;

  /** `known` is called when metadata have come. */
  constructor(service, { known }) {
    this.#service = service;
    this.#known = known;
    find("key").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#service.key = find("key-text").value.trim();
      this.look({ from: "key" });
    });
    find("model-card").addEventListener("click", (event) => {
      if (this.#service.key === null) return;
      event.preventDefault();
      this.#openModelCard();
    });
    // The documentation, opened from here, asks for the key that a browser cannot send with an address.
    addEventListener("message", (event) => {
      if (event.origin !== location.origin || event.data !== "key?" || this.#service.key === null) return;
      event.source.postMessage({ key: this.#service.key }, location.origin);
    });
  }

  get needsKey() {
    return this.#service.key !== null || !find("key").hidden;
  }

  async look({ from = "start" } = {}) {
    try {
      this.metadata = await this.#service.metadata();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      if (error.status === 401) return this.askForKey({ again: from === "key" });
      this.#say(error.message, "bad");
      setTimeout(() => this.look({ from }), AGAIN);
      return;
    }
    this.#describe();
    if (from === "key") {
      find("key").hidden = true;
      find("key-text").value = "";
      find("file").focus();
      announce("The key is accepted.");
    }
    this.#known(this.metadata);
    await this.#untilReady();
  }

  askForKey({ again = false } = {}) {
    find("key").hidden = false;
    this.#say(again ? "This key is not known here." : "A key is needed.", "bad");
    find("key-text").focus();
  }

  #describe() {
    const { engine, engine_version, licence, model, service, weights_sha256 } = this.metadata;
    find("stand-in").hidden = engine !== "fake";
    find("links").hidden = false;
    const by = engine_version ? `, vLLM ${engine_version}` : "";
    const hash = weights_sha256 ? [", weights ", element("code", {}, weights_sha256.slice(0, 12))] : [];
    find("origin").replaceChildren(`Med-MoE ${service}${by}; model ${model}, licence ${licence}`, ...hash, ".");
  }

  async #openModelCard() {
    const opened = window.open("about:blank");
    try {
      const text = new Blob([await this.#service.modelCard()], { type: "text/plain;charset=utf-8" });
      opened.location = URL.createObjectURL(text);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      opened.close();
      announce(error.message);
    }
  }

  async #untilReady() {
    const { model } = this.metadata;
    for (;;) {
      const ready = await this.#service.isReady().catch(() => false);
      if (ready) return this.#say(model, "good");
      this.#say(`${model} is still loading`, "busy");
      await new Promise((resolve) => setTimeout(resolve, AGAIN));
    }
  }

  #say(text, light) {
    // Said again, it would be read again.
    if (find("served").textContent !== text) find("served").textContent = text;
    find("light").dataset.light = light;
  }
}
