// The slices that were asked about, side by side, each with its own answer.

import { element } from "../element.js";
import { percent } from "../format.js";

const WAITING = "…";

export class SliceStrip {
  element = element("ol", { className: "strip", "aria-label": "Slices and their answers" });
  #entries = new Map();

  /** `slices` as they were rendered; `chosen(index)` is called with the one that is to be shown. */
  constructor(slices, { chosen }) {
    for (const { image, index } of slices) {
      const said = element("span", { className: "slice-answer" }, WAITING);
      const trust = element("span", { className: "small" });
      const button = element("button", { type: "button", className: "slice" },
        element("img", { src: image, alt: "", width: 72, height: 72 }),
        element("span", { className: "small" }, `Slice ${index + 1}`),
        said,
        trust,
      );
      button.addEventListener("click", () => chosen(index));
      const entry = element("li", {}, button);
      this.#entries.set(index, { button, entry, said, trust });
      this.element.append(entry);
    }
  }

  /** A slice as the service answers about it. */
  add(slice) {
    const { said, trust } = this.#entries.get(slice.index);
    const { text, note } = answerOf(slice);
    said.textContent = text;
    said.title = text;
    trust.textContent = note;
  }

  /** Mark the slice that decides. */
  mark(index) {
    const { button, entry } = this.#entries.get(index);
    button.classList.add("best");
    button.append(element("span", { className: "badge good" }, "decides"));
    // Not scrollIntoView: the page stays where it is.
    requestAnimationFrame(() => {
      this.element.scrollLeft = entry.offsetLeft - (this.element.clientWidth - entry.offsetWidth) / 2;
    });
  }

  /** Say of slices without an answer that none will come. */
  stop() {
    for (const { said } of this.#entries.values()) {
      if (said.textContent === WAITING) said.textContent = "not answered";
    }
  }

  /** Mark the slice that is shown. */
  turn(index) {
    for (const [own, { button }] of this.#entries) {
      if (own === index) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    }
  }
}

function answerOf({ answer, classification, uniform }) {
  if (uniform) return { text: "one shade", note: "not asked" };
  if (answer) return { text: answer.answer || "(nothing)", note: noted(answer, answer.confidence?.value) };
  const { label, labels, probabilities } = classification;
  if (labels) return { text: labels.join(", ") || "none of them", note: noted(classification) };
  const { probability } = probabilities.find((row) => row.label === label);
  return { text: label, note: noted(classification, probability) };
}

function noted({ abstained }, share) {
  return [...(share === undefined ? [] : [percent(share)]), ...(abstained ? ["abstained"] : [])].join(", ");
}
