// The service that this page came from, as an object: each route a method, each failure a Problem.

import { events } from "./events.js";
import { Problem } from "./problem.js";
import { areReadable, requestBody } from "./request_body.js";

export class Service {
  /** In memory alone; null as long as none was asked for. */
  key = null;

  metadata() {
    return this.#json("v1/metadata");
  }

  async modelCard() {
    return (await this.#answered("v1/model-card")).text();
  }

  batches() {
    return this.#json("v1/batches?limit=10");
  }

  async isReady() {
    return (await this.#fetch("health/ready")).ok;
  }

  render(image, fields, signal) {
    return this.#post("v1/render", "image", image, fields, signal);
  }

  classify(image, fields, signal) {
    return this.#post("v1/classify", "image", image, fields, signal);
  }

  explain(image, fields, signal) {
    return this.#post("v1/explain", "image", image, fields, signal);
  }

  /** The answer's text piece by piece, then the whole response. */
  async *ask(image, fields, signal) {
    const stream = this.#events("v1/vqa", "image", image, { ...fields, stream: true }, signal);
    for await (const event of stream) yield event.delta ?? event;
  }

  renderSeries(series, fields, signal) {
    return this.#post("v1/series/render", "series", series, fields, signal);
  }

  /** What was made of the series, each slice when it is answered, then the whole response. */
  askSeries(series, fields, signal) {
    return this.#events("v1/series", "series", series, { ...fields, stream: true }, signal);
  }

  async sources() {
    return (await this.#json("v1/sources")).data;
  }

  /** What a DICOMweb source holds: studies, the series of a `study`, or the instances of a `series`. */
  async listed({ source, study, series }, query, signal) {
    const uids = [study, series].filter(Boolean);
    const levels = ["studies", "series", "instances"].slice(0, uids.length + 1);
    const path = levels.flatMap((level, at) => (at < uids.length ? [level, uids[at]] : [level]));
    const address = ["v1/sources", ...[source, ...path].map(encodeURIComponent)].join("/");
    return (await this.#json(`${address}?${new URLSearchParams(query)}`, { signal })).data;
  }

  async *#events(path, name, sent, fields, signal) {
    const response = await this.#sent(path, name, sent, fields, signal);
    try {
      for await (const event of events(response.body)) {
        if (event.error) throw new Problem(event.error);
        yield event;
      }
    } catch (error) {
      throw Problem.from(error, response);
    }
  }

  async #post(path, name, sent, fields, signal) {
    return whole(await this.#sent(path, name, sent, fields, signal));
  }

  async #json(path, options) {
    return whole(await this.#answered(path, options));
  }

  async #sent(path, name, sent, fields, signal) {
    try {
      return await this.#answered(path, { ...requestBody(name, sent, fields), signal });
    } catch (error) {
      // A browser says the same of a file that has changed on its disk as of a service that is away.
      if (error.code === "no_answer" && !(await areReadable(sent))) throw Problem.ofFile();
      throw error;
    }
  }

  async #answered(path, options) {
    const response = await this.#fetch(path, options);
    if (!response.ok) throw await Problem.of(response);
    return response;
  }

  async #fetch(path, options = {}) {
    const headers = { ...options.headers, ...(this.key ? { Authorization: `Bearer ${this.key}` } : {}) };
    try {
      return await fetch(path, { ...options, headers, credentials: "omit" });
    } catch (error) {
      throw Problem.from(error);
    }
  }
}

async function whole(response) {
  try {
    return await response.json();
  } catch (error) {
    throw Problem.from(error, response);
  }
}

export const wasStopped = (error) => error?.name === "AbortError";

/** What `promise` gives, unless `signal` is aborted before. */
export function unlessStopped(promise, signal) {
  const stopped = new Promise((_, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
  return Promise.race([promise, stopped]);
}
