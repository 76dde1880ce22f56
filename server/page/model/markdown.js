// A model card's Markdown as elements: headings, paragraphs, lists, tables and code, and no markup of its own.

import { element } from "../element.js";

const INLINE = /`([^`]+)`|\*\*([^*]+)\*\*|\[([^\]]+)\]\((https?:[^)\s]+)\)/g;
const KINDS = [
  ["heading", /^#{1,6} /],
  ["fence", /^```/],
  ["code", /^( {4}|\t)/],
  ["table", /^\|/],
  ["list", /^[-*] /],
];

/** The elements of a text, in order. */
export function markdown(text) {
  const lines = text.replace(/^---\r?\n[\s\S]*?\n---\r?\n/, "").split(/\r?\n/);
  const made = [];
  while (lines.length) {
    if (!lines[0].trim()) lines.shift();
    else made.push(block(lines));
  }
  return made;
}

/** Takes the lines of one block off the front. */
function block(lines) {
  const kind = kindOf(lines[0]);
  if (kind === "heading") return heading(lines.shift());
  if (kind === "fence") {
    lines.shift();
    const code = take(lines, (line) => !line.startsWith("```"));
    lines.shift();
    return pre(code);
  }
  if (kind === "code") return pre(take(lines, (line) => kindOf(line) === "code").map((line) => line.trimStart()));
  if (kind === "table") return table(take(lines, (line) => kindOf(line) === "table"));
  if (kind === "list") return list(take(lines, (line) => line.trim() && ["list", "code", null].includes(kindOf(line))));
  return element("p", {}, ...inline(take(lines, (line) => line.trim() && kindOf(line) === null).join(" ")));
}

const kindOf = (line) => KINDS.find(([, pattern]) => pattern.test(line))?.[0] ?? null;

function take(lines, belongs) {
  const end = lines.findIndex((line) => !belongs(line));
  return lines.splice(0, end === -1 ? lines.length : end);
}

function heading(line) {
  const level = line.match(/^#+/)[0].length;
  // The dialog's own title is the second level.
  return element(`h${Math.min(level + 1, 6)}`, {}, ...inline(line.slice(level + 1)));
}

const pre = (lines) => element("pre", { tabIndex: 0 }, lines.join("\n"));

function list(lines) {
  const items = [];
  for (const line of lines) {
    if (/^[-*] /.test(line)) items.push(line.slice(2));
    else items[items.length - 1] += ` ${line.trim()}`;
  }
  return element("ul", {}, ...items.map((item) => element("li", {}, ...inline(item))));
}

function table(lines) {
  const rows = lines.map((line) => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim()));
  const [head, , ...body] = rows;
  const cells = (tag, row) => row.map((cell) => element(tag, tag === "th" ? { scope: "col" } : {}, ...inline(cell)));
  const made = element("table", {},
    element("thead", {}, element("tr", {}, ...cells("th", head))),
    element("tbody", {}, ...body.map((row) => element("tr", {}, ...cells("td", row)))),
  );
  return element("div", { className: "scroll", tabIndex: 0, role: "group", "aria-label": "Table" }, made);
}

function inline(text) {
  const parts = [];
  let end = 0;
  for (const found of text.matchAll(INLINE)) {
    const [whole, code, strong, words, href] = found;
    parts.push(text.slice(end, found.index));
    if (code) parts.push(element("code", {}, code));
    else if (strong) parts.push(element("strong", {}, strong));
    else parts.push(element("a", { href, target: "_blank", rel: "noopener noreferrer" }, words));
    end = found.index + whole.length;
  }
  return [...parts, text.slice(end)].filter(Boolean);
}
