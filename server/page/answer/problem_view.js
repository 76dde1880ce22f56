// A problem beside what it is about: one sentence, what to do, and the service's own words under Details.

import { inPlainWords } from "./advice.js";
import { announce, element, find } from "../element.js";
import { details, factList } from "./facts.js";

export class ProblemView {
  #box = find("problem");

  /** After `beside`. With `focus` the reader is taken there; without, as after a slider moved, it is only announced.
   * `action`: {text, run} of a button that gets past the problem. */
  show(problem, { beside, focus = true, action = null }) {
    const { happened, advice } = inPlainWords(problem);
    const facts = [
      ["message", happened === problem.message ? null : problem.message],
      ["type", problem.type],
      ["code", problem.code],
      ["field", problem.param],
      ["request id", problem.requestId],
    ].filter(([, value]) => value);
    this.#box.replaceChildren(
      element("h3", { id: "problem-title" }, happened),
      ...(advice ? [element("p", {}, advice)] : []),
      ...(action ? [this.#button(action)] : []),
      ...(facts.length ? [details(factList(facts))] : []),
    );
    beside.after(this.#box);
    this.#box.hidden = false;
    if (focus) this.#box.focus();
    else announce([happened, advice].filter(Boolean).join(" "));
  }

  clear() {
    // The button that was pressed goes; the question comes next.
    if (this.#box.contains(document.activeElement)) find("task").focus({ preventScroll: true });
    this.#box.hidden = true;
    this.#box.replaceChildren();
  }

  #button({ text, run }) {
    const button = element("button", { type: "button", className: "quiet" }, text);
    button.addEventListener("click", run);
    return element("div", { className: "row" }, button);
  }
}
