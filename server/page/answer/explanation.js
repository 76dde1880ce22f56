// Where an answer comes from: a map over a copy of the image that the answer is about, in the answer's own card.
//
// Never over the image on the left: that one may show another frame or window by the time the map comes.

import { announce, element } from "../element.js";
import { wasStopped } from "../api/service.js";

const IMAGE_FIELDS = ["frame", "window", "allow_uniform"];
const MEANING = [
  "Covering an orange place makes the answer less likely, covering a blue one likelier.",
  "This is what the model reacts to, not the outline of a finding.",
].join(" ");

export class Explanation {
  #service;
  #failed;
  #running = null;

  /** `failed(problem, {beside})` when there is no map. */
  constructor(service, { failed }) {
    this.#service = service;
    this.#failed = failed;
  }

  /** Offer the map of a whole answer in its card `box`; nothing where the service can make none. */
  offer(box, subject, response) {
    this.abort();
    const target = fieldsOf(subject, response);
    if (target === null) return;
    const button = element("button", { type: "button", className: "quiet" }, "Where from?");
    const place = element("div", { className: "explanation" }, button);
    button.addEventListener("click", () => {
      if (this.#running !== null) this.abort();
      else this.#show(place, button, subject, target);
    });
    box.append(place);
  }

  /** End what is being measured. */
  abort() {
    this.#running?.abort();
    this.#running = null;
  }

  async #show(place, button, { file, fields }, target) {
    const own = (this.#running = new AbortController());
    const shown = Object.fromEntries(IMAGE_FIELDS.filter((name) => name in fields).map((name) => [name, fields[name]]));
    button.textContent = "Stop measuring";
    announce("Covering one part of the image after the other. This takes a while.");
    try {
      const [frame, map] = await Promise.all([
        this.#service.render(file, { ...shown, view: "frame" }, own.signal),
        this.#service.explain(file, { ...shown, ...target, overlay: "layer" }, own.signal),
      ]);
      own.signal.throwIfAborted();
      place.replaceChildren(...figure(frame, map));
      announce("The map is shown.");
    } catch (error) {
      own.abort();
      button.textContent = "Where from?";
      if (!wasStopped(error)) this.#failed(error, { beside: place });
    } finally {
      if (this.#running === own) this.#running = null;
    }
  }
}

/** Of the request for the map, besides the image; null: a series, an answer that was cut, or several labels. */
function fieldsOf({ fields: { labels, question, mode, modality }, slices }, response) {
  if (slices !== null) return null;
  const { adapter_sha256, weights_sha256 } = response.provenance;
  const weights = (adapter_sha256 ?? weights_sha256)?.slice(0, 12);
  const kind = {
    // By the weights that gave the answer, or not at all.
    ...(weights ? { model: `${response.model}@${weights}` } : {}),
    ...(modality ? { modality } : {}),
  };
  if (labels === undefined) {
    if (response.finish_reason !== "stop" || response.answer === "") return null;
    return { question, answer: response.answer, ...kind };
  }
  if ((mode ?? "likelihood") !== "likelihood" || labels.length < 2) return null;
  return { labels, label: response.label, ...(question ? { question } : {}), ...kind };
}

function figure(frame, { answer, importance, overlay, scale, log_likelihood }) {
  const strongest = Math.max(...importance.flat());
  const layer = element("img", { src: overlay, alt: "", className: "layer" });
  const opacity = element("input", { type: "range", min: 0, max: 100, value: 80 });
  const follow = () => (layer.style.opacity = String(opacity.value / 100));
  opacity.addEventListener("input", follow);
  follow();
  const alt = `The image with a map of where the answer ${answer} comes from. ${inWords(importance)}`;
  return [
    element("figure", {},
      element("div", { className: "overlaid" }, element("img", { src: frame.image, alt }), layer),
      element("figcaption", {},
        element("div", { className: "legend" },
          element("span", {}, `−${scale.toFixed(1)}`),
          element("span", { className: "legend-bar", "aria-hidden": "true" }),
          element("span", {}, `+${scale.toFixed(1)}`),
        ),
        element("p", { className: "small" },
          `How much the log-likelihood of the answer (${log_likelihood.toFixed(2)}) falls: `,
          `by ${strongest.toFixed(2)} at most. ${MEANING}`,
        ),
        element("label", { className: "opacity" }, "Opacity of the map ", opacity),
      ),
    ),
  ];
}

/** The most important place. */
function inWords(importance) {
  const all = importance.flatMap((row, y) => row.map((value, x) => ({ value, x, y })));
  const { x, y } = all.reduce((most, one) => (one.value > most.value ? one : most));
  return `It falls most in row ${y + 1} of ${importance.length}, column ${x + 1} of ${importance[0].length}.`;
}
