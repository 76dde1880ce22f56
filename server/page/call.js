// The same call for a terminal and for a script: what the page would send now, without the key and without file names.

import { announce, find } from "./element.js";

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

  /** `call`: {route, fields, format, result, needsKey}; `result` names the field of the answer that is printed. Null
   * hides it. */
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
const file = (format) => `image.${SUFFIXES[format] ?? "png"}`;
const text = (value) => (Array.isArray(value) ? JSON.stringify(value) : String(value));
const quoted = (value) => `'${value.replaceAll("'", `'\\''`)}'`;

function curl({ route, fields, format, needsKey }) {
  return [
    `curl ${address(route)}`,
    ...(needsKey ? [`-H "Authorization: Bearer $${KEY}"`] : []),
    `-F image=@${file(format)}`,
    // Not -F: that would read a file for a question that begins with @.
    ...Object.entries(fields).map(([name, value]) => `--form-string ${quoted(`${name}=${text(value)}`)}`),
  ].join(" \\\n  ");
}

function python({ route, fields, format, needsKey, result }) {
  return [
    ...(needsKey ? ["import os"] : []),
    "from pathlib import Path",
    "",
    "import httpx",
    "",
    "response = httpx.post(",
    `    ${JSON.stringify(address(route))},`,
    ...(needsKey ? [`    headers={"Authorization": f"Bearer {os.environ['${KEY}']}"},`] : []),
    `    files={"image": Path("${file(format)}").read_bytes()},`,
    "    data={",
    ...Object.entries(fields).map(([name, value]) => `        "${name}": ${JSON.stringify(text(value))},`),
    "    },",
    "    timeout=60,",
    ")",
    "response.raise_for_status()",
    `print(response.json()["${result}"])`,
  ].join("\n");
}
