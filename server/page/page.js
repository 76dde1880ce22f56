// The page: its parts and what passes between them.

import { AnswerView } from "./answer.js";
import { CallView } from "./call.js";
import { ClassificationView } from "./classification.js";
import { find } from "./element.js";
import { Examples } from "./examples.js";
import { HeatMap } from "./heat_map.js";
import { Labels } from "./labels.js";
import { Picture } from "./picture.js";
import { Problem, ProblemView } from "./problem.js";
import { Question } from "./question.js";
import { Served } from "./served.js";
import { Service, wasStopped } from "./service.js";
import { theme } from "./theme.js";

const service = new Service();
const problems = new ProblemView();
const heatMap = new HeatMap();
const call = new CallView();
const served = new Served(service, {
  known: ({ expert_domains }) => {
    examples.offer(expert_domains);
    describe();
  },
});
const picture = new Picture(service, {
  changed: () => {
    problems.clear();
    describe();
  },
  failed: (problem, { focus }) => refuse(problem, { beside: find("well"), focus }),
});
const question = new Question({ changed: describe });
const labels = new Labels({ changed: describe });
const examples = new Examples({
  asked: (text) => (question.text = text),
  labelled: (chosen) => (labels.all = chosen),
});

const TASKS = {
  ask: { route: "v1/vqa", result: "answer", source: question, run: ask },
  classify: { route: "v1/classify", result: "probabilities", source: labels, run: classify },
};
let running = null;

const task = () => TASKS[document.querySelector("input[name=task]:checked").value];

/** What is sent, and what the snippets say: one and the same. */
function fields() {
  const modality = examples.modality ? { modality: examples.modality } : {};
  return { ...task().source.fields, ...picture.fields, ...modality, include_routing: true };
}

function describe() {
  const { route, result } = task();
  const format = picture.rendered?.rendering.format;
  call.show({ route, result, fields: fields(), format, needsKey: served.needsKey });
}

async function ask(sent, signal) {
  const view = new AnswerView(sent.question);
  try {
    for await (const piece of service.ask(picture.file, sent, signal)) {
      if (typeof piece === "string") view.add(piece);
      else return finish(view, piece);
    }
  } catch (error) {
    give(view, error);
  }
}

async function classify(sent, signal) {
  const view = new ClassificationView(sent.labels);
  try {
    finish(view, await service.classify(picture.file, sent, signal));
  } catch (error) {
    give(view, error);
  }
}

function finish(view, response) {
  view.finish(response);
  heatMap.show(response.routing);
}

/** What a view is left with when no whole answer comes. */
function give(view, error) {
  view.stop(wasStopped(error) ? "Stopped." : "Broken off.");
  if (!wasStopped(error)) refuse(error, { beside: task().source.form });
}

function refuse(error, options) {
  // A mistake of this page's own belongs into the browser's console, not into a box for the service's words.
  if (!(error instanceof Problem)) throw error;
  problems.show(error, options);
  if (error.status === 401) served.askForKey();
}

function lacking() {
  if (picture.file === null) return { field: find("file"), message: "Choose an image first." };
  return task().source.lacking;
}

async function run(event) {
  event.preventDefault();
  if (running !== null) return;
  problems.clear();
  const missing = lacking();
  if (missing !== null) {
    const beside = picture.file === null ? find("well") : event.target;
    problems.show(new Problem({ message: missing.message }), { beside, focus: false });
    missing.field.focus();
    return;
  }
  heatMap.show(null);
  running = new AbortController();
  busy(event.target, true);
  try {
    await task().run(fields(), running.signal);
  } finally {
    running = null;
    busy(event.target, false);
  }
}

function busy(form, isBusy) {
  const stop = form.querySelector(".stop");
  if (!isBusy && document.activeElement === stop) form.querySelector(".primary").focus();
  stop.hidden = !isBusy;
  form.querySelector(".primary").setAttribute("aria-disabled", String(isBusy));
}

for (const { source } of Object.values(TASKS)) {
  source.form.addEventListener("submit", run);
  source.form.querySelector(".stop").addEventListener("click", () => running?.abort());
}
for (const choice of document.getElementsByName("task")) {
  choice.addEventListener("change", () => {
    running?.abort();
    for (const [name, { source }] of Object.entries(TASKS)) source.form.hidden = name !== choice.value;
    problems.clear();
    describe();
  });
}
find("modality").addEventListener("change", describe);

theme();
examples.show();
describe();
served.look();
