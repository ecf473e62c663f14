// From what is written in the form to what is sent.

import { pathOf } from "./api.js";

/** Write the event of a form as the body of a request. */
export function bodyOf(fields) {
  const entries = fields.map(({ branch, input }) => `${JSON.stringify(branch.name)}: ${valueOf(branch, input.value)}`);
  return `{"events": [{${entries.join(", ")}}]}`;
}

function valueOf(branch, text) {
  if (branch.kind === "flat") return encoded(text.trim());
  return `[${text.trim() ? text.split(",").map((word) => encoded(word.trim())).join(", ") : ""}]`;
}

/** Write a word as JSON; what is no number goes as it is, for the server to say what it expects. */
function encoded(word) {
  if (word === "") return "null";
  if (word === "true" || word === "false" || /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/.test(word)) return word;
  return Number.isFinite(Number(word)) ? String(Number(word)) : JSON.stringify(word);
}

export function predictPath({ name, version, latest }) {
  return `${pathOf(name, version === latest ? null : version)}/predict`;
}

/** Write the command that asks the same. */
export function curl(model, path, body) {
  return command(model, path, `-H 'Content-Type: application/json'`, `-d ${quoted(body)}`);
}

/** Write the command that sends a form. */
export function curlForm(model, path, fields) {
  return command(model, path, ...Object.entries(fields).map(([name, value]) => `-F ${quoted(`${name}=${value}`)}`));
}

function command({ settings }, path, ...words) {
  const key = settings.keys ? ['-H "X-API-Key: $KEY"'] : [];
  return [`curl ${quoted(new URL(path, document.baseURI).href)}`, ...key, ...words].join(" \\\n  ");
}

function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
