// The card of an answer: what it is about, and whether that is still what is chosen.

import { element, find } from "../element.js";
import { capital } from "../format.js";

const ROOM = 64;
/* Pixels of the notice above. */

export class Result {
  #box = find("result");
  #subject = null;
  #note = null;

  /** Return the element that takes the answer. */
  open(title, subject) {
    this.#subject = subject;
    this.#note = element("p", { className: "banner stale-note", hidden: true });
    const body = element("div", { className: "result-body" });
    const about = element("div", {},
      element("h3", {}, title),
      element("p", {}, subject.title),
      ...(subject.caption ? [element("p", { className: "small" }, capital(subject.caption))] : []),
    );
    const alt = "The image that this is about";
    const image = element("img", { src: subject.thumbnail, alt, width: 64, height: 64 });
    this.#box.replaceChildren(this.#note, element("div", { className: "result-head" }, image, about), body);
    this.#box.hidden = false;
    find("routing").classList.remove("of-other");
    this.mark([]);
    return body;
  }

  clear() {
    this.#subject = null;
    this.#box.replaceChildren();
    this.mark([]);
  }

  /** Grey the answer when something else is chosen `now`; hide it when it is of the other task. */
  compare(now) {
    if (this.#subject === null) return;
    const isOther = this.#subject.task !== now.task;
    this.#box.hidden = isOther;
    find("routing").classList.toggle("of-other", isOther);
    if (!isOther) this.mark(this.#subject.differences(now));
  }

  /** `differences` in words. */
  mark(differences) {
    for (const id of ["result", "routing"]) find(id).classList.toggle("stale", differences.length > 0);
    if (this.#note === null) return;
    this.#note.hidden = differences.length === 0;
    this.#note.textContent = `About the previous ${differences.join(" and ")}, not what is chosen now.`;
  }

  /** Bring the answer into view where the screen is too small for both. */
  reveal() {
    const { top, bottom } = this.#box.getBoundingClientRect();
    if (top >= 0 && bottom <= innerHeight) return;
    const isStill = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const fits = bottom - top < innerHeight - ROOM;
    this.#box.scrollIntoView({ block: fits ? "nearest" : "start", behavior: isStill ? "auto" : "smooth" });
  }
}
