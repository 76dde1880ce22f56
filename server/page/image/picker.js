// Choose an image or a series of a DICOMweb source: its studies, their series, and their images. No patient is named.

import { announce, element, find } from "../element.js";
import { counted } from "../format.js";
import { PickerForm } from "./picker_form.js";
import { wasStopped } from "../api/service.js";

const KINDS = { CT: "CT", MR: "MRI", CR: "X-ray", DX: "X-ray", SM: "pathology" };
/* Modalities of DICOM, and what checkpoints call them. */
const MOST = 1000;
/* Series and images listed at once; the service lists no more. */

export class Picker {
  #service;
  #chosen;
  #failed;
  #box = find("pacs");
  #form = new PickerForm({ searched: () => this.#search() });
  #path = element("div", { className: "row" });
  #title = element("h3", { tabIndex: -1 });
  #list = element("ul", { className: "entries" });
  #running = null;

  /** `chosen.image(reference, {modality})` or `chosen.series(reference, {modality})`; `failed(problem)`. */
  constructor(service, { chosen, failed }) {
    this.#service = service;
    this.#chosen = chosen;
    this.#failed = failed;
    this.#title.hidden = true;
    this.#box.append(this.#form.element, this.#path, this.#title, this.#list);
  }

  /** Show the picker where the deployment has sources. */
  async offer() {
    const isRefused = ({ status }) => status === 401 || status === 403;
    const sources = await this.#service.sources().catch((error) => (isRefused(error) ? [] : null));
    if (sources === null) return;
    this.#form.offer(sources.map(({ name }) => name));
    this.#box.hidden = sources.length === 0;
  }

  #search() {
    const { query, source, study } = this.#form;
    return study ? this.#openStudy({ source, study }) : this.#openSource({ source }, query);
  }

  #openSource(reference, query) {
    return this.#open(reference, query, "study", "studies", [], (one) => {
      const { date, description, instance_count, modalities, series_count, study } = one;
      const counts = [
        ...(series_count === null ? [] : [`${series_count} series`]),
        ...(instance_count === null ? [] : [counted(instance_count, "image")]),
      ];
      const text = [written(date), modalities.join(", "), description].filter(Boolean).join(" · ") || "Study";
      const open = () => this.#openStudy({ ...reference, study }, { again: () => this.#openSource(reference, query) });
      return [text, [...counts, study].join(" · "), [["Open", open]]];
    });
  }

  #openStudy(reference, { again } = {}) {
    const back = again ? [["All studies", again]] : [];
    return this.#open(reference, {}, "series", "series", back, (one) => {
      const { description, instance_count, modality, number, series } = one;
      const text = [modality, number === null ? "" : `#${number}`, description].filter(Boolean).join(" ") || "Series";
      const count = instance_count === null ? "" : counted(instance_count, "image");
      const chosen = { ...reference, series };
      const kind = { modality: KINDS[modality] ?? "" };
      const whole = ["Whole series", () => this.#chosen.series(chosen, kind)];
      const images = () => this.#openSeries(chosen, kind, { again: () => this.#openStudy(reference, { again }) });
      return [text, count, [...(instance_count === 1 ? [] : [whole]), ["Images", images]]];
    });
  }

  #openSeries(reference, kind, { again }) {
    return this.#open(reference, {}, "image", "images", [["All series", again]], (one) => {
      const { columns, frames, instance, number, rows } = one;
      if (!rows || !columns) return null;
      const about = [`${columns} × ${rows}`, ...(frames > 1 ? [counted(frames, "frame")] : [])].join(", ");
      const open = () => this.#chosen.image({ ...reference, instance }, kind);
      return [number === null ? "Image" : `Image ${number}`, about, [["Show", open]]];
    });
  }

  /** List what lies below `reference`; `entry` makes of each a text, a note, and the names and actions of buttons. */
  async #open(reference, { limit = MOST, ...query }, one, many, back, entry) {
    this.#running?.abort();
    const { signal } = (this.#running = new AbortController());
    this.#box.setAttribute("aria-busy", "true");
    this.#show("Looking…", back, []);
    try {
      const listed = await this.#service.listed(reference, { limit, ...query }, signal);
      signal.throwIfAborted();
      const ordered = [...listed].sort((one, other) => (one.number ?? 0) - (other.number ?? 0));
      const rows = ordered.map(entry).filter((row) => row !== null);
      const found = rows.length ? counted(rows.length, one, many) : `No ${many} found`;
      const title = listed.length < limit ? found : `${found}, and perhaps more`;
      this.#show(title, back, rows.map((row) => listEntry(...row)));
      this.#title.focus();
      announce(`${title}.`);
    } catch (error) {
      if (wasStopped(error)) return;
      this.#show("", back, []);
      this.#failed(error);
    } finally {
      if (this.#running?.signal === signal) this.#box.setAttribute("aria-busy", "false");
    }
  }

  #show(title, back, entries) {
    this.#title.textContent = title;
    this.#title.hidden = title === "";
    this.#path.replaceChildren(...back.map(([text, run]) => actionButton(`‹ ${text}`, run)));
    this.#list.replaceChildren(...entries);
  }
}

function listEntry(text, note, actions) {
  const about = element("span", { className: "entry-text" },
    element("strong", {}, text),
    element("span", { className: "small" }, note),
  );
  const buttons = actions.map(([name, run]) => {
    const button = actionButton(name, run);
    button.setAttribute("aria-label", `${name}: ${text}`);
    return button;
  });
  return element("li", { className: "pick" }, about, element("div", { className: "row" }, ...buttons));
}

function actionButton(text, run) {
  const button = element("button", { type: "button", className: "quiet" }, text);
  button.addEventListener("click", run);
  return button;
}

const written = (date) => date?.replace(/^(\d{4})(\d{2})(\d{2})$/, "$1-$2-$3") ?? "";
