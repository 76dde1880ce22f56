// The same call for a terminal and for a script: what the page would send now, without the key and without file names.

import { announce, find } from "../element.js";
import { isReference } from "./request_body.js";

const SUFFIXES = { DICOM: "dcm", JPEG: "jpg", TIFF: "tif", WEBP: "webp", BMP: "bmp" };
const KEY = "API_KEY";
/* Of the environment; the page knows the key and never writes it anywhere. */

export class CallView {
  #shown = find("call");
  #call = null;

  constructor() {
    for (const language of document.getElementsByName("language")) {
      language.addEventListener("change", () => this.#write());
    }
    find("copy").addEventListener("click", () => this.#copy());
  }

  /** `call`: {route, sent, name, fields, format, result, needsKey}; `name` is that of the field with what is `sent`,
   * `result` that of the field of the answer that is printed. Null hides it. */
  show(call) {
    this.#call = call;
    find("same-call").hidden = call === null;
    if (call !== null) this.#write();
  }

  #write() {
    const language = document.querySelector("input[name=language]:checked").value;
    this.#shown.textContent = (language === "curl" ? curl : python)(this.#call);
  }

  async #copy() {
    try {
      await navigator.clipboard.writeText(this.#shown.textContent);
      announce("Copied.");
      find("copy").textContent = "Copied";
      setTimeout(() => (find("copy").textContent = "Copy"), 1500);
    } catch {
      // Browsers give the clipboard to secure origins only: then it is a matter of one more key.
      getSelection().selectAllChildren(this.#shown);
      this.#shown.focus();
      announce("Selected; copy it with your keyboard.");
    }
  }
}

const address = (route) => new URL(route, document.baseURI).href;
const file = (name, format) => (name === "series" ? "series.zip" : imageFile(format));
const imageFile = (format) => `image.${SUFFIXES[format] ?? "png"}`;
const text = (value) => (Array.isArray(value) ? JSON.stringify(value) : String(value));
const quoted = (value) => `'${value.replaceAll("'", `'\\''`)}'`;

/** As Python writes it. */
function literal(value) {
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value !== "object") return JSON.stringify(value);
  return `{${Object.entries(value).map(([name, one]) => `"${name}": ${literal(one)}`).join(", ")}}`;
}

function curl({ route, sent, name, fields, format, needsKey }) {
  const head = [`curl ${address(route)}`, ...(needsKey ? [`-H "Authorization: Bearer $${KEY}"`] : [])];
  if (isReference(sent)) {
    return [...head, `--json ${quoted(JSON.stringify({ [name]: sent, ...fields }))}`].join(" \\\n  ");
  }
  return [
    ...head,
    `-F ${name}=@${file(name, format)}`,
    // Not -F: that would read a file for a question that begins with @.
    ...Object.entries(fields).map(([name, value]) => `--form-string ${quoted(`${name}=${text(value)}`)}`),
  ].join(" \\\n  ");
}

function python({ route, sent, name, fields, format, needsKey, result }) {
  const isNamed = isReference(sent);
  return [
    ...(needsKey ? ["import os"] : []),
    ...(isNamed ? [] : ["from pathlib import Path", ""]),
    "import httpx",
    "",
    "response = httpx.post(",
    `    ${JSON.stringify(address(route))},`,
    ...(needsKey ? [`    headers={"Authorization": f"Bearer {os.environ['${KEY}']}"},`] : []),
    ...(isNamed
      ? [`    json=${literal({ [name]: sent, ...fields })},`]
      : [
          `    files={"${name}": Path("${file(name, format)}").read_bytes()},`,
          "    data={",
          ...Object.entries(fields).map(([field, value]) => `        "${field}": ${JSON.stringify(text(value))},`),
          "    },",
        ]),
    "    timeout=60,",
    ")",
    "response.raise_for_status()",
    `print(response.json()["${result}"])`,
  ].join("\n");
}
