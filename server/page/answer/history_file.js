// Questions and answers as JSON, whole, and as CSV, a line each.

const FORMULA = /^\s*[=+\-@\uff1d\uff0b\uff0d\uff20]/;
/* What a spreadsheet takes for one. */
const BYTE_ORDER_MARK = "\ufeff";
/* Without it, Excel reads another encoding. */

export function asJson(entries) {
  const written = entries.map(({ subject, response }) => ({
    asked_at: subject.askedAt.toISOString(),
    route: subject.route,
    fields: subject.fields,
    response,
  }));
  return `${JSON.stringify(written, null, 2)}\n`;
}

export function asCsv(entries) {
  const rows = entries.map(row);
  const columns = Object.keys(rows[0] ?? {});
  const lines = [columns, ...rows.map((cells) => columns.map((column) => cells[column]))];
  return BYTE_ORDER_MARK + lines.map((cells) => `${cells.map(cell).join(",")}\r\n`).join("");
}

function row({ subject, response }) {
  const { answer, best_slice, confidence, id, label, labels, model, probabilities, rule, unlike_training } = response;
  const { provenance } = decisive(response);
  const { frame, frames, windows } = provenance.rendering;
  return {
    asked_at: subject.askedAt.toISOString(),
    image_sha256: provenance.image_sha256,
    slice_from_1: best_slice === undefined ? null : best_slice + 1,
    rule,
    frame_from_1: frames > 1 ? frame + 1 : null,
    window: windows.map(({ centre, width }) => (centre === null ? "table" : `${centre}/${width}`)).join(" "),
    question: subject.fields.question,
    labels: subject.fields.labels,
    answer: answer ?? label ?? labels,
    confidence: confidence?.value,
    calibrated: confidence?.calibrated ?? (response.calibration ? true : confidence === undefined ? false : null),
    abstained: response.abstained,
    unlike_training: unlike_training?.flagged,
    probabilities: probabilities && Object.fromEntries(probabilities.map((one) => [one.label, one.probability])),
    id,
    model,
    weights_sha256: provenance.weights_sha256,
  };
}

/** The response itself, or that about the slice of a series that decides. */
function decisive(response) {
  const slice = response.slices?.find(({ index }) => index === response.best_slice);
  return slice === undefined ? response : (slice.answer ?? slice.classification);
}

function cell(value) {
  if (value === null || value === undefined) return "";
  const text = (typeof value === "object" ? JSON.stringify(value) : String(value)).replace(/[\u0000-\u001f]/g, " ");
  return `"${(FORMULA.test(text) ? `'${text}` : text).replaceAll('"', '""')}"`;
}
