// How likely the model finds each label.

import { abstention, badge, bar, heading } from "./answer.js";
import { announce, element, find } from "./element.js";
import { factList, provenanceDetails, timingFacts } from "./facts.js";
import { counted, decimal, percent } from "./format.js";

export class ClassificationView {
  #box = find("result");
  #labels;

  constructor(labels) {
    announce("Classifying. Stop ends it.");
    this.#labels = labels.join(", ");
    this.#box.replaceChildren(this.#heading(), element("p", { className: "answer coming" }));
    this.#box.setAttribute("aria-busy", "true");
  }

  finish(response) {
    const { abstained, calibration, id, mode, probabilities, provenance, timings } = response;
    const each = mode === "multi_label";
    const found = each ? response.labels.join(", ") || "none of them" : response.label;
    this.#box.removeAttribute("aria-busy");
    this.#box.replaceChildren(
      this.#heading(),
      element("p", { className: `answer${abstained ? " abstained" : ""}` }, found),
      ...(abstained ? [abstention(provenance.min_confidence)] : []),
      table(probabilities, { best: response.label, each }),
      factList([...(each ? [] : certainty(response)), ...timingFacts(timings)]),
      calibrationNote(calibration),
      provenanceDetails(id, provenance),
    );
    announce(`${abstained ? "Abstained. " : ""}Found: ${found}. The table has the probabilities.`);
  }

  stop(why) {
    this.#box.removeAttribute("aria-busy");
    this.#box.replaceChildren(this.#heading(), element("p", { className: "small" }, why));
    announce(why);
  }

  #heading() {
    return heading("Classification", this.#labels);
  }
}

function table(probabilities, { best, each }) {
  const rows = [...probabilities].sort((a, b) => b.probability - a.probability);
  const columns = each ? ["Label", "Yes", "Present", "Yes or no at all"] : ["Label", "Probability"];
  const head = element("tr", {}, ...columns.map((name) => element("th", { scope: "col" }, name)));
  const body = rows.map((row) => {
    const isBest = each ? row.present : row.label === best;
    const number = element("span", {}, percent(row.probability));
    const share = element("td", { className: "share" }, bar(row.probability), number);
    const more = each ? [presence(row), percent(row.label_mass)].map((text) => element("td", {}, text)) : [];
    const name = element("th", { scope: "row" }, row.label);
    return element("tr", { className: isBest ? "best" : "" }, name, share, ...more);
  });
  const title = each ? "Each label on its own" : "Labels by probability";
  return element("table", { className: each ? "probabilities each" : "probabilities" },
    element("caption", { className: "for-readers" }, title),
    element("thead", {}, head),
    element("tbody", {}, ...body),
  );
}

const presence = ({ present, abstained }) => `${present ? "yes" : "no"}${abstained ? ", abstained" : ""}`;

function certainty({ agreement, entropy, label_mass, margin, mode, permutations }) {
  const fits = label_mass < 0.05 ? " (near 0: the model would rather have said something else)" : "";
  return [
    ["label mass", `${percent(label_mass)}${fits}`],
    ["entropy", `${decimal(entropy)} nats`],
    ["margin", percent(margin)],
    ...(mode === "choice" ? [["agreement", `${percent(agreement)} of ${counted(permutations, "order")}`]] : []),
  ];
}

function calibrationNote(calibration) {
  if (calibration === null) {
    const why =
      " The probabilities are the model's own: the checkpoint has no calibration, or not for this way of asking.";
    return element("p", { className: "small" }, badge(false), why);
  }
  const { datasets, ece_after, ece_before, fitted_on, held_out, method, split, temperature } = calibration;
  const error = `${percent(ece_before)} before, ${percent(ece_after)} after, on ${counted(held_out, "other sample")}`;
  return element("div", { className: "calibration" },
    element("p", {}, badge(true)),
    factList([
      ["method", temperature === null ? method : `${method} ${decimal(temperature)}`],
      ["fitted on", `${counted(fitted_on, "sample")} of ${datasets.join(", ")} (${split})`],
      ["calibration error", error],
    ]),
  );
}
