// The service that this page came from, as an object: each route a method, each failure a Problem.

import { events } from "./events.js";
import { Problem } from "./problem.js";

export class Service {
  /** In memory alone; null as long as none was asked for. */
  key = null;

  metadata() {
    return this.#json("v1/metadata");
  }

  async modelCard() {
    return (await this.#answered("v1/model-card")).text();
  }

  async isReady() {
    return (await this.#fetch("health/ready")).ok;
  }

  render(file, fields, signal) {
    return this.#json("v1/render", { body: form(file, fields), method: "POST", signal });
  }

  classify(file, fields, signal) {
    return this.#json("v1/classify", { body: form(file, fields), method: "POST", signal });
  }

  /** The answer's text piece by piece, then the whole response. */
  async *ask(file, fields, signal) {
    const body = form(file, { ...fields, stream: true });
    const response = await this.#answered("v1/vqa", { body, method: "POST", signal });
    try {
      for await (const event of events(response.body)) {
        if (event.error) throw new Problem(event.error);
        yield event.delta ?? event;
      }
    } catch (error) {
      throw Problem.from(error);
    }
  }

  async #json(path, options) {
    const response = await this.#answered(path, options);
    try {
      return await response.json();
    } catch (error) {
      throw Problem.from(error, response);
    }
  }

  async #answered(path, options) {
    const response = await this.#fetch(path, options);
    if (!response.ok) throw await Problem.of(response);
    return response;
  }

  async #fetch(path, options = {}) {
    const headers = this.key ? { Authorization: `Bearer ${this.key}` } : {};
    try {
      return await fetch(path, { ...options, headers, credentials: "omit" });
    } catch (error) {
      throw Problem.from(error);
    }
  }
}

export const wasStopped = (error) => error?.name === "AbortError";

function form(file, fields) {
  const sent = new FormData();
  // Under a name of ours: a file's own may be a patient's.
  sent.append("image", file, "image");
  for (const [name, value] of Object.entries(fields)) {
    sent.append(name, Array.isArray(value) ? JSON.stringify(value) : String(value));
  }
  return sent;
}
