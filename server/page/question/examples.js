// Example questions and labels by modality, in the words of the public datasets that such models are trained on.

import { element, find } from "../element.js";

const QUESTIONS = {
  any: [
    "What modality is used to take this image?",
    "Which part of the body does this image belong to?",
    "Are there abnormalities in this image?",
  ],
  CT: [
    "Which part of the body does this image belong to?",
    "Which organs are shown?",
    "What is the main organ in the image?",
    "Is the lung healthy?",
  ],
  MRI: [
    "Is this a T1 or a T2 weighted image?",
    "What plane is this image in?",
    "Are there abnormalities in the brain?",
    "Where is the lesion?",
  ],
  "X-ray": [
    "Is there a pleural effusion?",
    "Is the heart enlarged?",
    "Is there evidence of a pneumothorax?",
    "Which lung is abnormal?",
  ],
  pathology: [
    "What is present?",
    "Which organ is this tissue from?",
    "Is there necrosis?",
    "What does the image show?",
  ],
};
const LABELS = {
  any: [["CT", "MRI", "X-ray", "pathology"], ["head", "neck", "chest", "abdomen", "pelvis"]],
  CT: [["liver", "kidney", "spleen", "lung", "heart"], ["head", "chest", "abdomen", "pelvis"]],
  MRI: [["glioma", "meningioma", "pituitary tumor", "no tumor"], ["T1", "T2", "FLAIR"]],
  "X-ray": [["normal", "pneumonia"], ["normal", "pleural effusion", "pneumothorax"]],
  pathology: [["benign", "malignant"], ["adenocarcinoma", "squamous cell carcinoma", "benign"]],
};

export class Examples {
  /* One in the options of each task; they show the same. */
  #selects = [...document.getElementsByName("modality")];
  #asked;
  #labelled;

  /** `asked(question)` and `labelled(labels)` are called with what was chosen. */
  constructor({ asked, labelled }) {
    this.#asked = asked;
    this.#labelled = labelled;
    for (const select of this.#selects) {
      select.addEventListener("change", () => (this.modality = select.value));
    }
  }

  get modality() {
    return this.#selects[0].value;
  }

  /** One that the checkpoint does not know counts as not stated. */
  set modality(chosen) {
    for (const select of this.#selects) {
      const isKnown = [...select.options].some(({ value }) => value === chosen);
      select.value = isKnown ? chosen : "";
    }
    this.show();
  }

  /** The checkpoint's own modalities. */
  offer(domains) {
    const chosen = this.modality;
    for (const select of this.#selects) {
      const options = domains.map((domain) => element("option", { value: domain }, domain));
      select.replaceChildren(element("option", { value: "" }, "not stated"), ...options);
    }
    this.modality = chosen;
  }

  show() {
    const known = this.modality in QUESTIONS ? this.modality : "any";
    fill("questions", QUESTIONS[known], (question) => question, this.#asked);
    fill("sets", LABELS[known], (labels) => labels.join(", "), this.#labelled);
  }
}

function fill(id, items, text, chosen) {
  find(id).replaceChildren(...items.map((item) => {
    const button = element("button", { type: "button", className: "chip" }, text(item));
    button.addEventListener("click", () => chosen(item));
    return element("li", {}, button);
  }));
}
