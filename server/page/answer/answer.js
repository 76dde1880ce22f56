// An answer, while it comes and once it is whole.

import { announce, element } from "../element.js";
import { details, factList, provenanceFacts, timingFacts, usageFacts } from "./facts.js";
import { percent } from "../format.js";
import { abstention, bar, calibrationBadge, unlikeTraining } from "./trust.js";

const CUT = "Cut off at the longest answer allowed.";

export class AnswerView {
  #box;
  #text = element("p", { className: "answer coming" });

  /** `box` takes the answer. */
  constructor(box) {
    announce("Answering. Stop ends it.");
    this.#box = box;
    this.#box.replaceChildren(this.#text);
    this.#box.setAttribute("aria-busy", "true");
  }

  /** Whether nothing has come. */
  get isEmpty() {
    return this.#text.textContent === "";
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
      ...cautions(response),
      ...(finish_reason === "length" ? [element("p", { className: "small" }, CUT)] : []),
      confidenceLine(confidence),
      details(factList([...timingFacts(timings), ...usageFacts(usage)]), factList(provenanceFacts(id, provenance))),
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

function cautions({ abstained, confidence, provenance, unlike_training }) {
  const unlike = unlikeTraining(unlike_training);
  if (unlike.length || !abstained) return unlike;
  return [abstention(confidence?.value, provenance.min_confidence)];
}

function confidenceLine(confidence) {
  if (confidence === null) return element("p", { className: "small" }, "Confidence: unknown.");
  const { value, calibrated } = confidence;
  const right = Math.min(99, Math.max(1, Math.round(100 * value)));
  const meaning = calibrated
    ? `About ${right} of 100 answers with this confidence were right, on data that the checkpoint was not fitted to.`
    : "The model's own probability of exactly this answer. It says nothing about how often such answers are right.";
  return element("div", { className: "confidence" },
    element("p", {}, "Confidence ", element("strong", {}, percent(value)), " ", calibrationBadge(calibrated)),
    bar(value),
    element("p", { className: "small" }, meaning),
  );
}

function spoken(confidence) {
  if (confidence === null) return "Confidence unknown.";
  return `Confidence ${percent(confidence.value)}, ${confidence.calibrated ? "" : "not "}calibrated.`;
}
