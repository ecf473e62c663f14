// @ts-check
// From what is written in the form to what is sent.

import { pathOf } from "./api.js";

/**
 * Write the event of a form as the body of a request.
 *
 * @param {BranchField[]} fields
 */
export function bodyOf(fields) {
  const entries = fields.map(({ branch, input }) => `${JSON.stringify(branch.name)}: ${valueOf(branch, input.value)}`);
  return `{"events": [{${entries.join(", ")}}]}`;
}

/**
 * @param {Branch} branch
 * @param {string} text
 */
function valueOf(branch, text) {
  if (branch.kind === "flat") return encoded(text.trim());
  return `[${text.trim() ? text.split(",").map((word) => encoded(word.trim())).join(", ") : ""}]`;
}

/**
 * Write a word as JSON; what is no number goes as it is, for the server to say what it expects.
 *
 * @param {string} word
 */
function encoded(word) {
  if (word === "") return "null";
  if (word === "true" || word === "false" || /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/.test(word)) return word;
  return Number.isFinite(Number(word)) ? String(Number(word)) : JSON.stringify(word);
}

/** @param {Model} model */
export function predictPath({ name, version, latest }) {
  return `${pathOf(name, version === latest ? null : version)}/predict`;
}

/**
 * Write the command that asks the same.
 *
 * @param {Model} model
 * @param {string} path
 * @param {string} body
 */
export function curl(model, path, body) {
  return command(model, path, `-H 'Content-Type: application/json'`, `-d ${quoted(body)}`);
}

/**
 * Write the command that sends a form.
 *
 * @param {Model} model
 * @param {string} path
 * @param {Record<string, string | number>} fields
 */
export function curlForm(model, path, fields) {
  return command(model, path, ...Object.entries(fields).map(([name, value]) => `-F ${quoted(`${name}=${value}`)}`));
}

/**
 * @param {Model} model
 * @param {string} path
 * @param {...string} words
 */
function command({ settings }, path, ...words) {
  const key = settings.keys ? ['-H "X-API-Key: $KEY"'] : [];
  return [`curl ${quoted(new URL(path, document.baseURI).href)}`, ...key, ...words].join(" \\\n  ");
}

/** @param {string} text */
function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
