// The page: its parts and what passes between them.

import { AnswerView } from "./answer.js";
import { ApiKey } from "./api_key.js";
import { CallView } from "./call.js";
import { ChosenImage } from "./chosen_image.js";
import { ClassificationView } from "./classification.js";
import { find } from "./element.js";
import { Examples } from "./examples.js";
import { HeatMap } from "./heat_map.js";
import { History } from "./history.js";
import { ImageSources } from "./image_sources.js";
import { Labels } from "./labels.js";
import { Problem } from "./problem.js";
import { ProblemView } from "./problem_view.js";
import { Question } from "./question.js";
import { Result } from "./result.js";
import { Served } from "./served.js";
import { Service, wasStopped } from "./service.js";
import { Subject } from "./subject.js";
import { theme } from "./theme.js";

const service = new Service();
const key = new ApiKey(service, { given: () => served.look() });
const served = new Served(service, key, { known: ({ expert_domains }) => examples.offer(expert_domains) });
const problems = new ProblemView();
const heatMap = new HeatMap();
const call = new CallView();
const result = new Result();
const history = new History({ chosen: seeAgain });
const image = new ChosenImage(service, {
  changed: () => {
    problems.clear();
    describe();
  },
  failed: (problem, { focus }) => refuse(problem, { beside: find("well"), focus }),
});
new ImageSources({
  chosen: (blob, { modality }) => {
    forget();
    examples.modality = modality;
    image.choose(blob);
  },
});
const question = new Question({ changed: describe });
const labels = new Labels({ changed: describe });
const examples = new Examples({
  asked: (text) => {
    question.text = text;
    askAnew(question.form);
  },
  labelled: (chosen) => {
    labels.all = chosen;
    askAnew(labels.form);
  },
});

const TASKS = {
  ask: { route: "v1/vqa", result: "answer", title: "Answer", source: question, View: AnswerView, send: ask },
  classify: {
    route: "v1/classify", result: "probabilities", title: "Classification", source: labels, View: ClassificationView,
    send: classify,
  },
};
let running = null;

const task = () => TASKS[document.querySelector("input[name=task]:checked").value];

/** What is sent, what the snippets say, and what an answer is compared with: one and the same. */
function now() {
  const { route, source } = task();
  const fields = { ...source.fields, ...image.fields, include_routing: true };
  return new Subject({ file: image.file, route, fields, caption: image.caption });
}

function describe() {
  const { route, result: printed, source } = task();
  const current = now();
  const format = image.rendered?.rendering.format;
  const isWhole = image.file !== null && source.lacking === null;
  call.show(isWhole ? { route, result: printed, fields: current.fields, format, needsKey: key.isNeeded } : null);
  result.compare(current);
}

async function ask(view, { fields }, signal) {
  for await (const piece of service.ask(image.file, fields, signal)) {
    // A piece that had come before the stop.
    signal.throwIfAborted();
    if (typeof piece !== "string") return piece;
    view.add(piece);
  }
}

function classify(view, { fields }, signal) {
  return service.classify(image.file, fields, signal);
}

/** Send, and show the answer where it belongs: to what was shown when it was asked. */
async function answer(signal) {
  const { View, send, source, title } = task();
  await image.settled();
  signal.throwIfAborted();
  // Its own problem is shown.
  if (image.rendered === null) return;
  const subject = now();
  subject.thumbnail = image.thumbnail();
  const view = new View(result.open(title, subject));
  result.reveal();
  try {
    const response = await send(view, subject, signal);
    signal.throwIfAborted();
    view.finish(response);
    heatMap.show(response.routing);
    history.add(subject, response);
    result.reveal();
    describe();
  } catch (error) {
    view.stop(wasStopped(error) ? "Stopped." : "Broken off.");
    if (wasStopped(error)) return;
    if (view.isEmpty) result.clear();
    refuse(error, { beside: source.form });
  }
}

function seeAgain({ subject, response }) {
  const [name, { View, source, title }] = Object.entries(TASKS).find(([, { route }]) => route === subject.route);
  running?.abort();
  choose(name);
  source.restore(subject.fields);
  image.restore(subject.fields);
  new View(result.open(title, subject)).finish(response);
  heatMap.show(response.routing);
  describe();
  result.reveal();
}

/** Answers about an image go with it. */
function forget() {
  running?.abort();
  result.clear();
  heatMap.show(null);
  history.clear();
}

function refuse(error, options) {
  // A mistake of this page's own belongs into the browser's console, not into a box for the service's words.
  if (!(error instanceof Problem)) throw error;
  const showAnyway = { text: "Show it all the same", run: () => image.allowUniform() };
  problems.show(error, { ...options, action: error.code === "uniform_image" ? showAnyway : null });
  if (error.status === 401) served.askForKey();
}

/** Instead of what is being asked. */
function askAnew(form) {
  running?.abort();
  running = null;
  form.requestSubmit();
}

function lacking() {
  if (image.file === null) return { field: find("file"), message: "Choose an image first." };
  return task().source.lacking;
}

async function run(event) {
  event.preventDefault();
  if (running !== null) return;
  const missing = lacking();
  if (missing !== null) {
    const beside = image.file === null ? find("well") : event.target;
    problems.show(new Problem({ message: missing.message }), { beside, focus: false });
    missing.field.focus();
    return;
  }
  problems.clear();
  const own = (running = new AbortController());
  heatMap.show(null);
  busy(event.target, true);
  try {
    await answer(own.signal);
  } catch (error) {
    if (!wasStopped(error)) throw error;
  } finally {
    if (running === own) running = null;
    if (running === null) busy(event.target, false);
  }
}

function busy(form, isBusy) {
  const stop = form.querySelector(".stop");
  if (!isBusy && document.activeElement === stop) form.querySelector(".primary").focus();
  stop.hidden = !isBusy;
  form.querySelector(".primary").setAttribute("aria-disabled", String(isBusy));
}

function choose(name) {
  document.querySelector(`input[name=task][value=${name}]`).checked = true;
  for (const [other, { source }] of Object.entries(TASKS)) source.form.hidden = other !== name;
}

for (const { source } of Object.values(TASKS)) {
  source.form.addEventListener("submit", run);
  source.form.querySelector(".stop").addEventListener("click", () => running?.abort());
}
for (const choice of document.getElementsByName("task")) {
  choice.addEventListener("change", () => {
    running?.abort();
    choose(choice.value);
    problems.clear();
    describe();
  });
}
find("remove").addEventListener("click", forget);

theme();
examples.show();
describe();
served.look();
