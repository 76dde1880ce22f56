// Names and values, as a list that screen readers know.

import { element } from "../element.js";
import { milliseconds } from "../format.js";

/** `facts`: pairs of a name and its value, a text or an element. */
export function factList(facts) {
  const rows = facts.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value)));
  return element("dl", { className: "facts" }, ...rows);
}

export function timingFacts({ image, queue, engine, total }) {
  return [
    ["image read in", milliseconds(image)],
    ["queued", milliseconds(queue)],
    ["engine", milliseconds(engine)],
    ["time in all", milliseconds(total)],
  ];
}

export function usageFacts({ prompt_tokens, image_tokens, completion_tokens, cached_tokens }) {
  return [
    ["tokens in", `${prompt_tokens} (image ${image_tokens})`],
    ["tokens out", String(completion_tokens)],
    ...(cached_tokens ? [["from cache", String(cached_tokens)]] : []),
  ];
}

export function provenanceFacts(id, provenance) {
  const { rendering, ...rest } = provenance;
  return Object.entries({ id, ...rest, ...rendering }).map(([name, value]) => [
    name.replaceAll("_", " "),
    element("code", {}, written(value)),
  ]);
}

/** Closed at first. */
export function details(...children) {
  return element("details", { className: "details" }, element("summary", {}, "Details"), ...children);
}

function written(value) {
  if (value === null) return "none";
  if (!Array.isArray(value)) return String(value);
  if (value.length === 0) return "none";
  return value.map((item) => (typeof item === "object" ? JSON.stringify(item) : item)).join(", ");
}
