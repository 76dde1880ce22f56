// What is served, what it is for, and whether it answers.

import { element, find } from "../element.js";
import { ModelCard } from "./model_card.js";
import { Problem } from "../api/problem.js";

const AGAIN = 2000;
/* Milliseconds between two looks at a service that still loads. */
const NOTICE = /^(Research (software, not|with Med-MoE)|Not (a medical device: not )?for diagnosis, triage or treatment)/;
/* Sentences that the page's own notice says already. */
const SENTENCE = /[^]+?(?:[.!?]+(?=\s|$)|$)/g;
/* No end is in a number such as 80.5. */
const WEIGHTS = ["weights_sha256", "adapter_sha256"];

export class Served {
  #service;
  #key;
  #known;
  #card;
  #metadata = null;
  #looking = null;

  /** `known` is called when metadata have come. */
  constructor(service, key, { known }) {
    this.#service = service;
    this.#key = key;
    this.#known = known;
    this.#card = new ModelCard(service);
  }

  /** Look again where an answer is another model's than the page tells of. */
  follow({ model, provenance }) {
    const told = this.#metadata;
    if (told === null) return;
    const isSame = model === told.model && WEIGHTS.every((name) => !provenance || provenance[name] === told[name]);
    if (!isSame) this.look();
  }

  async look() {
    const own = (this.#looking = {});
    let metadata;
    try {
      metadata = await this.#service.metadata();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      if (this.#looking !== own) return;
      if (error.status === 401) return this.askForKey();
      this.#say(error.message, "bad");
      setTimeout(() => this.#looking === own && this.look(), AGAIN);
      return;
    }
    if (this.#looking !== own) return;
    this.#metadata = metadata;
    this.#card.forget();
    this.#key.accept();
    this.#describe(metadata);
    this.#known(metadata);
    await Promise.all([this.#tellPurpose(metadata), this.#untilReady(metadata, own)]);
  }

  askForKey() {
    this.#key.ask({ refused: this.#service.key !== null });
    this.#say("An API key is needed.", "bad");
  }

  #describe({ engine, engine_version, licence, model, service, weights_sha256 }) {
    find("stand-in").hidden = engine !== "fake";
    find("links").hidden = false;
    const by = engine_version ? `, vLLM ${engine_version}` : "";
    const hash = weights_sha256 ? [", weights ", element("code", {}, weights_sha256.slice(0, 12))] : [];
    find("origin").replaceChildren(`Med-MoE ${service}${by}; model ${model}, licence ${licence}`, ...hash, ".");
  }

  /** In a line, from the metadata and the checkpoint's own card. */
  async #tellPurpose({ expert_domains, intended_use, model }) {
    const { limits, more } = await this.#card.opening();
    const told = `${intended_use} ${limits}`.match(SENTENCE) ?? [];
    const sentences = told.map((sentence) => sentence.trim()).filter((sentence) => sentence && !NOTICE.test(sentence));
    const kinds = expert_domains.length ? [`Kinds of image: ${expert_domains.join(", ")}.`] : [];
    find("purpose-text").replaceChildren(
      element("strong", {}, `${model}.`),
      ` ${[...sentences, ...kinds].join(" ")}`,
    );
    find("purpose-list").replaceChildren(...more);
    find("purpose-more").hidden = more.length === 0;
    find("purpose").hidden = false;
  }

  async #untilReady({ model }, own) {
    for (;;) {
      const ready = await this.#service.isReady().catch(() => false);
      if (this.#looking !== own) return;
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
