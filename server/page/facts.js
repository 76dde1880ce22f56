// Names and values, as a list that screen readers know.

import { element } from "./element.js";
import { milliseconds } from "./format.js";

/** `facts`: pairs of a name and its value, a text or an element. */
export function factList(facts) {
  const rows = facts.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value)));
  return element("dl", { className: "facts" }, ...rows);
}

export function timingFacts({ image, queue, engine, total }) {
  return [
    ["image", milliseconds(image)],
    ["queue", milliseconds(queue)],
    ["engine", milliseconds(engine)],
    ["in all", milliseconds(total)],
  ];
}

export function usageFacts({ prompt_tokens, image_tokens, completion_tokens, cached_tokens }) {
  return [
    ["tokens in", `${prompt_tokens} (image ${image_tokens})`],
    ["tokens out", String(completion_tokens)],
    ...(cached_tokens ? [["from cache", String(cached_tokens)]] : []),
  ];
}

/** Closed at first. */
export function provenanceDetails(id, provenance) {
  const { rendering, ...rest } = provenance;
  const facts = Object.entries({ id, ...rest, ...rendering }).map(([name, value]) => [
    name.replaceAll("_", " "),
    element("code", {}, written(value)),
  ]);
  return element("details", { className: "provenance" }, element("summary", {}, "Provenance"), factList(facts));
}

function written(value) {
  if (value === null) return "none";
  if (!Array.isArray(value)) return String(value);
  if (value.length === 0) return "none";
  return value.map((item) => (typeof item === "object" ? JSON.stringify(item) : item)).join(", ");
}
