// The caller's latest batches, as a table; the section stays hidden without any.

import { element, find } from "./element.js";
import { Problem } from "./api/problem.js";

const AGAIN = 5000;
/* Milliseconds between two looks while a batch has not ended. */
const ENDED = ["completed", "failed", "expired", "cancelled"];
const COLUMNS = ["Created", "Route", "Status", "Answered", "Failed", "Lines"];

export class Batches {
  #service;
  #box = find("batches");
  #table = element("div", { className: "scroll", tabIndex: 0, role: "group", "aria-labelledby": "batches-title" });
  #timer = null;

  constructor(service) {
    this.#service = service;
    this.#box.append(element("h2", { id: "batches-title" }, "Batches"), this.#table);
  }

  /** Show the batches, and follow those that have not ended. */
  async show() {
    clearTimeout(this.#timer);
    const { key } = this.#service;
    let batches = [];
    try {
      batches = (await this.#service.batches()).data;
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      // It answers later; a refusal stays one, and hides what another key was shown.
      if (error.isPassing && error.status !== 401) return this.#again();
    }
    // Those of another caller.
    if (key !== this.#service.key) return;
    const head = element("tr", {}, ...COLUMNS.map((name) => element("th", { scope: "col" }, name)));
    const table = element("table", {}, element("thead", {}, head), element("tbody", {}, ...batches.map(row)));
    this.#table.replaceChildren(table);
    this.#box.hidden = batches.length === 0;
    if (batches.some(({ status }) => !ENDED.includes(status))) this.#again();
  }

  #again() {
    this.#timer = setTimeout(() => this.show(), AGAIN);
  }
}

function row({ created_at, endpoint, paused, request_counts, status }) {
  const { completed, failed, total } = request_counts;
  const told = paused === null ? status.replace("_", " ") : "paused: the disk is full";
  const values = [new Date(1000 * created_at).toLocaleString("en"), endpoint, told, completed, failed, total];
  return element("tr", {}, ...values.map((value) => element("td", {}, String(value))));
}
