// How likely the model finds each label.

import { announce, element } from "../element.js";
import { details, factList, provenanceFacts, timingFacts } from "./facts.js";
import { counted, decimal, percent } from "../format.js";
import { abstention, bar, calibrationBadge, caution, unlikeTraining } from "./trust.js";

const LEAST_MASS = 0.05;
/* Under it the model would have said something else than any label. */
const LEAST_MARGIN = 0.2;

export class ClassificationView {
  /** Whether nothing has come; it comes all at once. */
  isEmpty = true;
  #box;

  constructor(box) {
    announce("Classifying. Stop ends it.");
    this.#box = box;
    this.#box.replaceChildren(element("p", { className: "answer coming" }));
    this.#box.setAttribute("aria-busy", "true");
  }

  finish(response) {
    this.isEmpty = false;
    const { abstained, calibration, id, mode, probabilities, provenance, timings } = response;
    const each = mode === "multi_label";
    const isDoubtful = abstained || isUnfit(response);
    const found = each ? response.labels.join(", ") || "none of them" : response.label;
    this.#box.removeAttribute("aria-busy");
    this.#box.replaceChildren(
      element("p", { className: `answer${isDoubtful ? " abstained" : ""}` }, found),
      each ? verdictOnEach(response) : verdict(response),
      table(probabilities, { best: response.label, each }),
      element("p", { className: "small" }, calibrationBadge(calibration !== null), ` ${meaning(calibration, provenance)}`),
      details(
        factList([...(each ? masses(probabilities) : certainty(response)), ...timingFacts(timings)]),
        ...(calibration === null ? [] : [factList(calibrationFacts(calibration))]),
        factList(provenanceFacts(id, provenance)),
      ),
    );
    announce(`${abstained ? "Abstained. " : ""}Found: ${found}. The table has the probabilities.`);
  }

  stop(why) {
    this.#box.removeAttribute("aria-busy");
    this.#box.replaceChildren(element("p", { className: "small" }, why));
    announce(why);
  }
}

/** Whether the model would have said something else than any label. */
function isUnfit({ label_mass, provenance }) {
  return label_mass < Math.max(LEAST_MASS, provenance.min_label_mass ?? 0);
}

/** In one sentence. */
function verdict({ abstained, label_mass, margin, probabilities, provenance, unlike_training }) {
  const [best, next] = byProbability(probabilities);
  const unlike = unlikeTraining(unlike_training);
  if (unlike.length) return unlike[0];
  if (isUnfit({ label_mass, provenance })) {
    return caution("None of these.", "The model would rather have said something else than any of these labels.");
  }
  if (abstained) return abstention(best.probability, provenance.min_confidence);
  if (margin < LEAST_MARGIN) {
    const rivals = [best, next].map(({ label, probability }) => `${label} ${percent(probability)}`);
    return caution("The model is unsure.", `${rivals.join(", ")}.`);
  }
  return element("p", {}, `Clearly before ${next.label}.`);
}

function verdictOnEach({ abstained, probabilities, unlike_training }) {
  const unlike = unlikeTraining(unlike_training);
  if (unlike.length) return unlike[0];
  const unfit = probabilities.filter((row) => row.label_mass < LEAST_MASS).map((row) => row.label);
  const unsure = probabilities.filter((row) => row.margin < LEAST_MARGIN).map((row) => row.label);
  if (unfit.length) {
    const about = unfit.length === probabilities.length ? "these labels" : unfit.join(", ");
    return caution("Not yes or no.", `About ${about} the model would rather have said something else than yes or no.`);
  }
  if (unsure.length) return caution("The model is unsure", `about ${unsure.join(", ")}.`);
  if (abstained) return caution("Abstained", "about the labels marked below: those should not be relied on.");
  return element("p", {}, "Each label was asked about on its own.");
}

const byProbability = (rows) => [...rows].sort((a, b) => b.probability - a.probability);

function table(probabilities, { best, each }) {
  const columns = each ? ["Label", "Probability of yes", "Present"] : ["Label", "Probability"];
  const head = element("tr", {}, ...columns.map((name) => element("th", { scope: "col" }, name)));
  const body = byProbability(probabilities).map((row) => {
    const isBest = each ? row.present : row.label === best;
    const number = element("span", {}, percent(row.probability));
    const share = element("td", { className: "share" }, bar(row.probability), number);
    const presence = each ? [element("td", {}, presenceOf(row))] : [];
    const name = element("th", { scope: "row" }, row.label);
    return element("tr", { className: isBest ? "best" : "" }, name, share, ...presence);
  });
  const title = each ? "Each label on its own" : "Labels by probability";
  return element("table", { className: each ? "probabilities each" : "probabilities" },
    element("caption", { className: "for-readers" }, title),
    element("thead", {}, head),
    element("tbody", {}, ...body),
  );
}

const presenceOf = ({ present, abstained }) => `${present ? "yes" : "no"}${abstained ? ", abstained" : ""}`;

function certainty({ agreement, entropy, label_mass, margin, mode, permutations }) {
  return [
    ["label mass", percent(label_mass)],
    ["entropy", `${decimal(entropy)} nats`],
    ["margin", percent(margin)],
    ...(mode === "choice" ? [["agreement", `${percent(agreement)} of ${counted(permutations, "order")}`]] : []),
  ];
}

const masses = (rows) => rows.map(({ label, label_mass }) => [`yes or no at all: ${label}`, percent(label_mass)]);

function meaning(calibration, { contextual_calibration }) {
  if (calibration !== null) return "On other data, under Details, they were about as often right as they say.";
  if (contextual_calibration) return "The probabilities are compared with those of images that show nothing.";
  return "The probabilities are the model's own: the checkpoint has no calibration, or not for this way of asking.";
}

function calibrationFacts({ datasets, ece_after, ece_before, fitted_on, held_out, method, split, temperature }) {
  return [
    ["calibration", temperature === null ? method : `${method} ${decimal(temperature)}`],
    ["fitted on", `${counted(fitted_on, "sample")} of ${datasets.join(", ")} (${split})`],
    [
      "calibration error",
      `${percent(ece_before)} before, ${percent(ece_after)} after, on ${counted(held_out, "other sample")}`,
    ],
  ];
}
