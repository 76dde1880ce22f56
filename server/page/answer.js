// An answer, while it comes and once it is whole.

import { announce, element, find } from "./element.js";
import { factList, provenanceDetails, timingFacts, usageFacts } from "./facts.js";
import { percent } from "./format.js";

const CUT = "Cut off at the longest answer allowed.";

export class AnswerView {
  #box = find("result");
  #text = element("p", { className: "answer coming" });

  /** `question` is shown above what answers it. */
  constructor(question) {
    announce("Answering. Stop ends it.");
    this.#box.replaceChildren(heading("Answer", question), this.#text);
    this.#box.setAttribute("aria-busy", "true");
  }

  add(delta) {
    this.#text.append(delta);
  }

  /** The whole response, as the service sends it last. */
  finish(response) {
    this.#end();
    const { answer, abstained, confidence, finish_reason, id, provenance, timings, usage } = response;
    this.#text.textContent = answer || "(nothing)";
    this.#text.classList.toggle("abstained", abstained);
    this.#box.append(
      ...(abstained ? [abstention(provenance.min_confidence)] : []),
      ...(finish_reason === "length" ? [element("p", { className: "small" }, CUT)] : []),
      confidenceLine(confidence),
      factList([...timingFacts(timings), ...usageFacts(usage)]),
      provenanceDetails(id, provenance),
    );
    announce(`${abstained ? "Abstained. " : ""}Answer: ${answer}. ${spoken(confidence)}`);
  }

  /** What has come so far stays, and is said to be a part. */
  stop(why) {
    this.#end();
    this.#text.classList.add("partial");
    this.#box.append(element("p", { className: "small" }, why));
    announce(why);
  }

  #end() {
    this.#text.classList.remove("coming");
    this.#box.removeAttribute("aria-busy");
  }
}

export function heading(title, about) {
  return element("div", { className: "result-head" }, element("h3", {}, title), element("p", {}, about));
}

export function abstention(least) {
  const text = ` Less sure than ${percent(least)}: this should not be relied on.`;
  return element("p", { className: "banner caution" }, element("strong", {}, "Abstained."), text);
}

/** A share as a bar; its number stands beside it, so screen readers skip the bar. */
export function bar(share) {
  const filled = element("span", { className: "filled" });
  filled.style.setProperty("--share", share);
  return element("span", { className: "bar", "aria-hidden": "true" }, filled);
}

function confidenceLine(confidence) {
  if (confidence === null) return element("p", { className: "small" }, "Confidence: unknown.");
  const { value, calibrated } = confidence;
  const meaning = calibrated
    ? "How often answers like this one were right, on data that the checkpoint was not fitted to."
    : "The model's own probability of exactly this answer. It says nothing about how often such answers are right.";
  return element("div", { className: "confidence" },
    element("p", {}, "Confidence ", element("strong", {}, percent(value)), " ", badge(calibrated)),
    bar(value),
    element("p", { className: "small" }, meaning),
  );
}

export function badge(calibrated) {
  const className = `badge ${calibrated ? "good" : "caution"}`;
  return element("span", { className }, calibrated ? "calibrated" : "not calibrated");
}

function spoken(confidence) {
  if (confidence === null) return "Confidence unknown.";
  return `Confidence ${percent(confidence.value)}, ${confidence.calibrated ? "" : "not "}calibrated.`;
}
