// @ts-check
// The form to try an event: filled in from the sample in the manifest, scored by the server.

import { scores, warnings } from "./answer.js";
import { ask } from "./api.js";
import { el, figure, shortest } from "./dom.js";
import { tryForm } from "./form.js";
import { bodyOf, curl, predictPath } from "./payload.js";

/** @param {Model} model */
export function eventForm(model) {
  const { manifest } = model;
  const fields = manifest.branches.map((branch, i) => fieldOf(branch, i, manifest));
  const places = new Map(fields.map((field) => [field.name, field.note]));
  const content = [sampleChoice(manifest, fields), groups(fields, manifest, places)];
  const score = async () => {
    for (const note of places.values()) note.replaceChildren();
    const answer = await ask(`${predictPath(model)}?explain`, bodyOf(fields));
    return [...scores(answer, manifest), ...warnings(answer.explain[0], places)];
  };
  const command = () => curl(model, `${predictPath(model)}?explain`, bodyOf(fields));
  return tryForm({ fields, content, hint: "Leave a field empty where a value is missing.", score, command });
}

/**
 * @param {Branch} branch
 * @param {number} i
 * @param {Manifest} manifest
 * @returns {BranchField}
 */
function fieldOf(branch, i, { ranges }) {
  const id = `field-${i}`, range = ranges[branch.name], described = `${id}-hint ${id}-note`;
  const note = el("span", { class: "note", id: `${id}-note` });
  const hint = range ? `${figure(range.low)} … ${figure(range.high)}` : "";
  const input = el("input", {
    id, name: branch.name, autocomplete: "off", spellcheck: "false", "aria-describedby": described,
  });
  const element = el("div", { class: "field" },
    el("label", { for: id }, branch.name, branch.unit && el("span", { class: "faint" }, ` ${branch.unit}`)),
    input, el("span", { class: "faint", id: `${id}-hint` }, hint), note);
  return { name: branch.name, branch, input, note, element };
}

/**
 * Put numbers side by side, and the lists of a collection below one another.
 *
 * @param {BranchField[]} fields
 * @param {Manifest} manifest
 * @param {Map<string, HTMLElement>} places
 */
function groups(fields, { features }, places) {
  /** @type {(field: BranchField) => string} */
  const groupOf = ({ branch }) => (branch.kind === "jagged" ? branch.counts ?? branch.name : "");
  return [...new Set(fields.map(groupOf))].map((name) => {
    const note = el("p", { class: "note" });
    if (name && !places.has(name)) places.set(name, note);
    return el("fieldset", { class: name ? "lists" : "numbers" },
      el("legend", null, name || "event", name && hintOf(features.jagged?.[name])),
      fields.filter((field) => groupOf(field) === name).map((field) => field.element), note);
  });
}

/** @param {{ length?: number | "auto" }} [collection] */
function hintOf(collection) {
  const used = collection?.length ? `; ${collection.length === "auto" ? "all" : collection.length} are used` : "";
  return el("span", { class: "faint" }, ` one number for each object, with commas between${used}`);
}

/**
 * @param {Manifest} manifest
 * @param {BranchField[]} fields
 */
function sampleChoice({ parity }, fields) {
  const columns = parity?.columns ?? {};
  /** @param {number} at */
  const fill = (at) => {
    for (const { branch, input } of fields) input.value = written(columns[branch.name]?.[at] ?? null, branch);
  };
  const number = Math.max(0, ...Object.values(columns).map((column) => column.length));
  /** @type {HTMLSelectElement} */
  const choice = el("select", { id: "sample", oninput: () => fill(Number(choice.value)) },
    Array.from({ length: number }, (_, i) => el("option", { value: i }, String(i + 1))));
  fill(0);
  return number > 1 && el("p", { class: "row" }, el("label", { for: "sample" }, "Sample event"), choice);
}

/**
 * @param {Value} value
 * @param {Branch} branch
 * @returns {string}
 */
function written(value, branch) {
  if (Array.isArray(value)) return value.map((one) => written(one, branch)).join(", ");
  return value === null ? "" : shortest(value, branch.dtype);
}
