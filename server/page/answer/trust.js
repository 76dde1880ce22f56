// How far a result can be relied on: bars, badges and cautions.

import { element } from "../element.js";
import { exact } from "../format.js";

/** A share as a bar; its number stands beside it, so screen readers skip the bar. */
export function bar(share) {
  const filled = element("span", { className: "filled" });
  filled.style.setProperty("--share", share);
  return element("span", { className: "bar", "aria-hidden": "true" }, filled);
}

export function calibrationBadge(calibrated) {
  const className = `badge ${calibrated ? "good" : "caution"}`;
  return element("span", { className }, calibrated ? "calibrated" : "not calibrated");
}

export function caution(title, text) {
  return element("p", { className: "banner caution" }, element("strong", {}, title), ` ${text}`);
}

/** `value` is the confidence, `least` the one that was asked for; either may be unknown. */
export function abstention(value, least) {
  const why = value < least ? `Less sure than ${exact(100 * least)} %: this` : "This";
  return caution("Abstained.", `${why} should not be relied on.`);
}

/** Of a response's `unlike_training`: null where the checkpoint cannot tell. */
export function unlikeTraining(note) {
  if (!note?.flagged) return [];
  return [caution("Unlike the training images.", "The model has not seen images like this one: do not rely on this.")];
}
