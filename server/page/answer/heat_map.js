// Which experts the tokens of this very answer went to: a table of layers and experts, coloured by share.

import { element, find } from "../element.js";
import { percent } from "../format.js";

const EXPLANATION =
  "In each of these layers a gate sent every token to an expert. The names are the modalities on which the experts " +
  "were trained, not findings in this image.";
const KINDS = { image: "Image", question: "Question", answer: "Answer" };

export class HeatMap {
  #box = find("routing");
  #routing = null;
  #kinds = new Set(Object.keys(KINDS));
  #table = element("div", { className: "scroll", tabIndex: 0, role: "group", "aria-labelledby": "routing-title" });

  constructor() {
    const toggles = Object.entries(KINDS).map(([kind, name]) => {
      const input = element("input", { type: "checkbox", checked: true });
      input.addEventListener("change", () => {
        this.#kinds[input.checked ? "add" : "delete"](kind);
        this.#draw();
      });
      return element("label", { className: "toggle" }, input, element("span", {}, name));
    });
    const legend = element("legend", { className: "for-readers" }, "Tokens that are counted");
    const head = element("div", { className: "call-head" },
      element("h2", { id: "routing-title" }, "Where the tokens went"),
      element("fieldset", { className: "toggles" }, legend, ...toggles),
    );
    this.#box.append(head, element("p", { className: "small" }, EXPLANATION), this.#table);
  }

  /** `routing` as an answer has it; null where the service reports none. */
  show(routing) {
    this.#routing = routing;
    this.#box.hidden = routing === null || routing.layers.length === 0;
    if (!this.#box.hidden) this.#draw();
  }

  #draw() {
    const { expert_domains, layers } = this.#routing;
    const experts = layers[0].image.map((_, expert) => expert_domains[expert] ?? null);
    const chosen = Object.keys(KINDS).filter((kind) => this.#kinds.has(kind));
    const names = chosen.map((kind) => KINDS[kind].toLowerCase());
    const about = names.length
      ? `Share and number of tokens of ${listed(names)} that each expert got`
      : "No kind of token is chosen";
    const head = element("tr", {},
      element("th", { scope: "col" }, "Layer"),
      ...experts.map(expertHead),
      element("th", { scope: "col", className: "total" }, "In all"),
    );
    const table = element("table", { className: "heat" },
      element("caption", {}, about),
      element("thead", {}, head),
      element("tbody", {}, ...layers.map((layer) => row(layer, chosen))),
    );
    table.style.setProperty("--experts", experts.length);
    this.#table.replaceChildren(table);
  }
}

const listed = (names) => [names.slice(0, -1).join(", "), names.at(-1)].filter(Boolean).join(" and ");

function expertHead(domain, expert) {
  const number = element("span", { className: "small" }, `expert ${expert}`);
  return element("th", { scope: "col" }, ...(domain === null ? [] : [domain, " "]), number);
}

function row(layer, kinds) {
  const counts = layer.image.map((_, expert) => kinds.reduce((sum, kind) => sum + layer[kind][expert], 0));
  const total = counts.reduce((sum, count) => sum + count, 0);
  const most = Math.max(...counts);
  const cells = counts.map((count) => {
    const share = total ? count / total : 0;
    const isMost = count > 0 && count === most;
    const texts = [element("span", {}, percent(share)), " ", element("span", { className: "small" }, String(count))];
    const cell = element("td", { className: isMost ? "most" : "" }, ...texts);
    cell.style.setProperty("--share", share);
    return cell;
  });
  const name = element("th", { scope: "row" }, String(layer.layer));
  return element("tr", {}, name, ...cells, element("td", { className: "total" }, String(total)));
}
