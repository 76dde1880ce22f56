// An answer about a series: the slices while they come, then one result, its rule, and the slice that decides.

import { announce, element } from "../element.js";
import { details, factList, timingFacts } from "../answer/facts.js";
import { counted, percent } from "../format.js";
import { SliceStrip } from "./slice_strip.js";
import { bar, calibrationBadge, caution } from "../answer/trust.js";

const RULES = {
  most_confident: "the answer with the highest confidence",
  majority: "the answer that most slices give",
  mean: "each label's mean probability over the slices",
  max: "each label's largest probability in any slice",
};

export class SeriesView {
  /** Whether nothing has come. */
  isEmpty = true;
  #box;
  #jump;
  #strip;
  #answer = element("p", { className: "answer coming" });
  #progress;
  #count = element("p", { className: "small" });

  /** `slices`: those that are asked about, as they were rendered; `jump(index)` shows one of them. */
  constructor(box, { slices, jump }) {
    announce(`Asking about ${counted(slices.length, "slice")}. Stop ends it.`);
    this.#box = box;
    this.#jump = jump;
    this.#strip = new SliceStrip(slices, { chosen: jump });
    this.#progress = element("progress", { max: slices.length, value: 0, "aria-label": "Slices answered" });
    this.#tell(0);
    this.#box.setAttribute("aria-busy", "true");
    this.#box.replaceChildren(this.#answer, this.#progress, this.#count, this.#strip.element);
  }

  /** An event of the stream. */
  add({ done, slice }) {
    this.isEmpty = false;
    this.#strip.add(slice);
    this.#tell(done);
  }

  /** Mark the slice that is shown beside the answer. */
  turn(index) {
    this.#strip.turn(index);
  }

  finish(response) {
    this.isEmpty = false;
    this.#end();
    const { abstained, best_slice, id, model, rule, series, slices, timings } = response;
    const found = response.answer ?? (response.labels.join(", ") || "none of them");
    for (const slice of slices) this.#strip.add(slice);
    this.#strip.mark(best_slice);
    this.#answer.textContent = found || "(nothing)";
    this.#answer.classList.toggle("abstained", abstained);
    this.#box.replaceChildren(
      this.#answer,
      ...(abstained ? [caution("Abstained.", "This should not be relied on.")] : []),
      element("p", {}, "Rule ", element("strong", {}, rule), `: ${RULES[rule]}. ${agreementOf(response)}`),
      ...(response.kind === "classification" ? [this.#table(response)] : []),
      element("p", { className: "small" }, calibrationBadge(false), " No calibration was fitted to results of series."),
      this.#best(response),
      this.#strip.element,
      details(factList(timingFacts(timings)), factList(Object.entries({ id, model, ...described(series) }))),
    );
    this.#jump(best_slice);
    announce(`${abstained ? "Abstained. " : ""}Result: ${found}. Slice ${best_slice + 1} decides and is shown.`);
  }

  /** What has come so far stays, and is said to be a part. */
  stop(why) {
    this.#end();
    this.#strip.stop();
    this.#answer.remove();
    this.#progress.remove();
    this.#count.textContent = `${why} ${this.#count.textContent}; no result was made of them.`;
    announce(why);
  }

  #end() {
    this.#answer.classList.remove("coming");
    this.#box.removeAttribute("aria-busy");
  }

  #tell(done) {
    this.#progress.value = done;
    this.#count.textContent = `${done} of ${counted(this.#progress.max, "slice")} answered`;
  }

  #best({ best_slice, series }) {
    return element("p", {}, this.#jumpTo(best_slice), ` of ${series.slice_count} decides; it is marked below.`);
  }

  #jumpTo(index) {
    const button = element("button", { type: "button", className: "text-button" }, `Slice ${index + 1}`);
    button.addEventListener("click", () => this.#jump(index));
    return button;
  }

  #table({ labels, probabilities }) {
    const columns = ["Label", "Probability", "Best slice"].map((name) => element("th", { scope: "col" }, name));
    const rows = [...probabilities].sort((a, b) => b.probability - a.probability).map((row) => {
      const number = element("span", {}, percent(row.probability));
      const share = element("td", { className: "share" }, bar(row.probability), number);
      const slice = element("td", {}, this.#jumpTo(row.best_slice));
      const name = element("th", { scope: "row" }, row.label);
      return element("tr", { className: labels.includes(row.label) ? "best" : "" }, name, share, slice);
    });
    return element("table", { className: "probabilities each" },
      element("caption", { className: "for-readers" }, "Labels by probability"),
      element("thead", {}, element("tr", {}, ...columns)),
      element("tbody", {}, ...rows),
    );
  }
}

const agreementOf = ({ agreement }) => (agreement === undefined ? "" : `${percent(agreement)} of the slices agree.`);

function described({ ignored_files, irregular, ordered_by, sampled, slice_count, spacing, window, window_source }) {
  return {
    slices: `${sampled.length} of ${slice_count}`,
    "ordered by": ordered_by.replaceAll("_", " "),
    spacing: spacing === null ? "unknown" : `${spacing} mm`,
    irregular: irregular ? "yes" : "no",
    window: window ?? "each slice's own",
    "window from": window_source.replaceAll("_", " "),
    "files left out": String(ignored_files),
  };
}
