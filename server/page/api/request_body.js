// The body of a request with an image or a series: a form with files, or JSON that names what a source has.

/** Whether `sent` names an image or a series of a DICOMweb source: {source, study, series, instance}. */
export const isReference = (sent) => sent?.source !== undefined;

/** Options of fetch; `sent` is a file, several files, or a reference. */
export function requestBody(name, sent, fields) {
  if (isReference(sent)) {
    const headers = { "Content-Type": "application/json" };
    return { method: "POST", headers, body: JSON.stringify({ [name]: sent, ...fields }) };
  }
  const body = new FormData();
  // Under a name of ours: a file's own may be a patient's.
  for (const file of [sent].flat()) body.append(name, file, name);
  for (const [field, value] of Object.entries(fields)) {
    body.append(field, Array.isArray(value) ? JSON.stringify(value) : String(value));
  }
  return { method: "POST", body };
}

/** Whether the files of `sent` still are what was chosen; those that a source has are. */
export async function areReadable(sent) {
  if (isReference(sent)) return true;
  try {
    await Promise.all([sent].flat().map((file) => file.slice(0, 1).arrayBuffer()));
    return true;
  } catch {
    return false;
  }
}

/** All frames of an image, as a series is sent. */
export function framesOf(file) {
  if (!isReference(file)) return [file];
  const { source, study, series } = file;
  return { source, study, series };
}
