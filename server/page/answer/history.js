// The questions that were asked about this image, and their answers; as a file on request.

import { announce, element, find } from "../element.js";
import { asCsv, asJson } from "./history_file.js";
import { percent } from "../format.js";

export class History {
  #box = find("history");
  #list = find("entries");
  #entries = [];
  #chosen;

  /** `chosen(entry)` is called with what is to be seen again: {subject, response}. */
  constructor({ chosen }) {
    this.#chosen = chosen;
    find("save-json").addEventListener("click", () => save("json", "application/json", asJson(this.#entries)));
    find("save-csv").addEventListener("click", () => save("csv", "text/csv", asCsv(this.#entries)));
  }

  add(subject, response) {
    const entry = { subject, response };
    this.#entries.push(entry);
    this.#list.prepend(this.#row(entry));
    this.#box.hidden = false;
  }

  clear() {
    this.#entries = [];
    this.#list.replaceChildren();
    this.#box.hidden = true;
  }

  #row(entry) {
    const { subject, response } = entry;
    const button = element("button", { type: "button", className: "entry" },
      element("img", { src: subject.thumbnail, alt: "", width: 48, height: 48 }),
      element("span", { className: "entry-text" },
        element("span", { className: "small" }, [subject.title, subject.caption].filter(Boolean).join(" · ")),
        element("strong", {}, answerOf(response)),
      ),
      element("span", { className: "small" }, trustOf(response)),
    );
    button.addEventListener("click", () => this.#chosen(entry));
    return element("li", {}, button);
  }
}

function answerOf({ answer, label, labels }) {
  return (answer ?? label ?? (labels.join(", ") || "none of them")) || "(nothing)";
}

function trustOf({ abstained, confidence, label, probabilities, unlike_training }) {
  if (unlike_training?.flagged) return "unlike training";
  if (abstained) return "abstained";
  const value = confidence?.value ?? probabilities?.find((row) => row.label === label)?.probability;
  return value === undefined ? "" : percent(value);
}

function save(suffix, type, text) {
  const address = URL.createObjectURL(new Blob([text], { type: `${type};charset=utf-8` }));
  element("a", { href: address, download: `med-moe-answers.${suffix}` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
  announce("Saved.");
}
