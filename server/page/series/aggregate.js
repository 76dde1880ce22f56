// By which rule one result is made of those of the slices: an option of each task.

import { element, find } from "../element.js";

const RULES = {
  ask: [["", "highest confidence"], ["majority", "majority of the slices"]],
  classify: [["", "mean; largest where each label is asked alone"], ["mean", "mean probability"], ["max", "largest probability"]],
};

/** Add the option to the forms; it is shown for a series alone. */
export function offerAggregates() {
  for (const [form, rules] of Object.entries(RULES)) {
    const select = element("select", { name: "aggregate" }, ...rules.map(([value, text]) => new Option(text, value)));
    const label = element("label", { className: "of-series-only", hidden: true }, "One result by ", select);
    find(form).querySelector(".options").append(label);
  }
}
