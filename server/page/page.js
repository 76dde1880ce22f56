// The page: its parts and what passes between them.

import { offerAggregates } from "./series/aggregate.js";
import { ApiKey } from "./api/api_key.js";
import { Batches } from "./batches.js";
import { CallView } from "./api/call.js";
import { ChosenImage } from "./image/chosen_image.js";
import { ChosenSeries } from "./series/chosen_series.js";
import { find } from "./element.js";
import { Examples } from "./question/examples.js";
import { Explanation } from "./answer/explanation.js";
import { HeatMap } from "./answer/heat_map.js";
import { History } from "./answer/history.js";
import { ImageSources } from "./image/image_sources.js";
import { Labels } from "./question/labels.js";
import { Picker } from "./image/picker.js";
import { Problem } from "./api/problem.js";
import { ProblemView } from "./answer/problem_view.js";
import { Question } from "./question/question.js";
import { framesOf } from "./api/request_body.js";
import { Result } from "./answer/result.js";
import { routes } from "./routes.js";
import { Served } from "./model/served.js";
import { Service, unlessStopped, wasStopped } from "./api/service.js";
import { Subject } from "./question/subject.js";
import { theme } from "./theme.js";
import { wayOut } from "./answer/way_out.js";

const service = new Service();
const key = new ApiKey(service, { given: () => served.look() });
const batches = new Batches(service);
const served = new Served(service, key, {
  known: (metadata) => {
    examples.offer(metadata.expert_domains);
    picker.offer();
    if (metadata.batches) batches.show();
  },
});
const problems = new ProblemView();
const heatMap = new HeatMap();
const call = new CallView();
const result = new Result();
const history = new History({ chosen: seeAgain });
const explanation = new Explanation(service, { failed: refuse });
const image = new ChosenImage(service, { changed, failed });
const series = new ChosenSeries(service, {
  changed,
  failed,
  removed: forget,
  turned: (index) => view?.turn?.(index),
});
const sources = new ImageSources({
  chosen: chooseImage,
  several: (blobs) => chooseSeries(blobs, { modality: "" }),
  failed,
});
const picker = new Picker(service, {
  chosen: { image: above(chooseImage), series: above(chooseSeries) },
  failed: (problem) => refuse(problem, { beside: find("pacs"), focus: false }),
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
  ask: { result: "answer", title: "Answer", source: question },
  classify: { result: "probabilities", title: "Classification", source: labels },
};
const ROUTES = routes(service, { image, series });
let running = null;
/* What takes the answer that is shown. */
let view = null;

const isSeries = () => series.file !== null;
const target = () => (isSeries() ? series : image);
const taskName = () => document.querySelector("input[name=task]:checked").value;
const task = () => ({ ...TASKS[taskName()], ...(isSeries() ? ROUTES.series : ROUTES[taskName()]) });

function changed() {
  problems.clear();
  describe();
}

function failed(problem, { focus }) {
  refuse(problem, { beside: isSeries() ? find("series") : find("well"), focus });
}

function chooseImage(file, { modality }) {
  forget();
  series.clear();
  examples.modality = modality;
  image.choose(file);
}

/** All frames of the image as a series; a film, whose frames are no volume, stays what it is. */
async function chooseFrames() {
  const { file } = image;
  const frames = framesOf(file);
  try {
    await service.renderSeries(frames, { slices: 2, allow_irregular: true });
  } catch (error) {
    if (image.file === file) refuse(error, { beside: find("frames"), focus: false });
    return;
  }
  if (image.file === file) chooseSeries(frames, { modality: examples.modality });
}

/** Choose, and bring what is chosen into view from the lists below it. */
function above(choose) {
  return (reference, options) => {
    choose(reference, options);
    find("task").previousElementSibling.scrollIntoView({ block: "start" });
  };
}

function chooseSeries(files, { modality }) {
  forget();
  image.clear();
  examples.modality = modality;
  series.choose(files);
}

/** What is sent, what the snippets say, and what an answer is compared with: one and the same. */
function now({ route, source } = task(), asked = source.fields) {
  const { caption, fields: shown, file } = target();
  const fields = { ...asked, ...shown, ...(isSeries() ? {} : { include_routing: true }) };
  return new Subject({ file, route, fields, caption });
}

function describe() {
  const { route, result: printed, source } = task();
  const current = now();
  const format = image.rendered?.rendering.format;
  const { fields, file: sent } = current;
  const name = isSeries() ? "series" : "image";
  const isWhole = sent !== null && source.lacking === null;
  call.show(isWhole ? { route, sent, name, result: printed, fields, format, needsKey: key.isNeeded } : null);
  result.compare(current);
}

/** Send, and show the answer where it belongs: to what was shown when it was asked. */
async function answer(signal) {
  const asking = task();
  const { open, send, source, title } = asking;
  // As they were when it was asked, whatever is written while the image is on its way.
  const { fields } = source;
  const shown = target();
  await unlessStopped(shown.settled(), signal);
  signal.throwIfAborted();
  // Its own problem is shown.
  if (shown.rendered === null) return;
  const subject = now(asking, fields);
  subject.thumbnail = shown.thumbnail();
  subject.slices = shown.rendered.slices ?? null;
  explanation.abort();
  heatMap.show(null);
  const box = result.open(title, subject);
  const own = (view = open(box, subject));
  own.turn?.(series.index);
  result.reveal();
  try {
    const response = await send(own, subject, signal);
    signal.throwIfAborted();
    own.finish(response);
    explanation.offer(box, subject, response);
    heatMap.show(response.routing ?? null);
    history.add(subject, response);
    served.follow(response);
    result.reveal();
    describe();
  } catch (error) {
    own.stop(wasStopped(error) ? "Stopped." : "Broken off.");
    if (wasStopped(error)) return;
    if (own.isEmpty) result.clear();
    refuse(error, { beside: source.form });
  }
}

function seeAgain({ subject, response }) {
  running?.abort();
  choose(subject.fields.labels === undefined ? "ask" : "classify");
  const { open, source, title } = task();
  source.restore(subject.fields);
  examples.modality = subject.fields.modality ?? "";
  target().restore(subject.fields);
  const box = result.open(title, subject);
  view = open(box, subject);
  view.finish(response);
  explanation.offer(box, subject, response);
  heatMap.show(response.routing ?? null);
  describe();
  result.reveal();
}

/** Answers about an image go with it. */
function forget() {
  for (const one of [running, explanation, sources]) one?.abort();
  view = null;
  result.clear();
  heatMap.show(null);
  history.clear();
}

function refuse(error, options) {
  // A mistake of this page's own belongs into the browser's console, not into a box for the service's words.
  if (!(error instanceof Problem)) throw error;
  problems.show(error, { ...options, action: wayOut(error, { image, series }) });
  if (error.status === 401) served.askForKey();
  if (error.status === 503 || error.code === "no_answer") served.look();
}

/** Instead of what is being asked. */
function askAnew(form) {
  running?.abort();
  running = null;
  form.requestSubmit();
}

function lacking() {
  if (target().file === null) return { field: find("file"), message: "Choose an image first." };
  return task().source.lacking;
}

async function run(event) {
  event.preventDefault();
  if (running !== null) return;
  const missing = lacking();
  if (missing !== null) {
    const beside = target().file === null ? find("well") : event.target;
    problems.show(new Problem({ message: missing.message }), { beside, focus: false });
    missing.field.closest("details")?.setAttribute("open", "");
    missing.field.focus();
    return;
  }
  problems.clear();
  const own = (running = new AbortController());
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
find("as-series").addEventListener("click", chooseFrames);

theme();
offerAggregates();
examples.show();
describe();
served.look();
