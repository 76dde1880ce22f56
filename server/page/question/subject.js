// What an answer is about: one image or series, as it was shown, and one question.

const SILENT = new Set(["modality", "include_routing", "allow_uniform"]);
/* Fields that change nothing of an answer. */

export class Subject {
  /** `file` identifies the image or series; `fields` are those of the request; `route` is where it goes. A small
   * `thumbnail`, and the `slices` of a series, are added when it is asked. */
  constructor({ file, route, fields, caption }) {
    Object.assign(this, { file, route, fields, caption, thumbnail: null, slices: null });
    this.askedAt = new Date();
  }

  /** Which kind of question it is. */
  get task() {
    return `${this.route} ${this.fields.labels === undefined ? "question" : "labels"}`;
  }

  /** For people: the question, or the labels. */
  get title() {
    return this.fields.labels?.join(", ") ?? this.fields.question;
  }

  /** What was another than it is `now`, in words; empty: nothing. */
  differences(now) {
    if (this.file !== now.file) return ["image"];
    const names = new Set([...Object.keys(this.fields), ...Object.keys(now.fields)]);
    const changed = [...names].filter((name) => !SILENT.has(name) && !same(this.fields[name], now.fields[name]));
    return [...new Set(changed.map((name) => (WORDS.includes(name) ? name : "options")))];
  }
}

const WORDS = ["frame", "window", "slices", "question", "labels"];
const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);
