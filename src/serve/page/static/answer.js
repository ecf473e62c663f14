// @ts-check
// What the server said of an event.

import { el, figure, table } from "./dom.js";

const SHOWN = 50; // rows and columns of a table at most

/**
 * Show what the model says of an event: scores, and values with their units.
 *
 * @param {Scores} answer
 * @param {Manifest} manifest
 */
export function scores({ model, version, scores: found }, { outputs: specs }) {
  const units = unitsOf(specs);
  return [heading(model, version), ...Object.entries(found).map(([name, [value]]) => scoreOf(name, value, units.get(name)))];
}

/**
 * Give the unit of each column that holds physical values, empty where it is not known.
 *
 * @param {OutputSpec[]} specs
 * @returns {Map<string, string>}
 */
function unitsOf(specs) {
  const values = specs.filter((spec) => spec.kind === "regression");
  return new Map(values.flatMap(({ columns, units = [] }) => columns.map((name, i) => [name, units[i] ?? ""])));
}

/**
 * Show the tensors that a model gives, one event as its scores.
 *
 * @param {InferenceAnswer} answer
 * @param {Manifest} manifest
 */
export function outputs({ model_name: model, model_version: version, outputs: tensors }, { outputs: specs }) {
  const units = unitsOf(specs);
  return [heading(model, version), ...tensors.flatMap((output) => {
    const columns = specs.find((spec) => spec.name === output.name)?.columns ?? [];
    const isEvent = output.data.length === columns.length && output.data.every((value) => typeof value === "number");
    return [...(tensors.length > 1 ? [el("h3", null, output.name)] : []),
      ...(isEvent ? columns.map((name, i) => scoreOf(name, Number(output.data[i]), units.get(name)))
        : [rowsOf(output, columns)])];
  })];
}

/**
 * Show the scores of an image.
 *
 * @param {number[]} values
 * @param {Model} model
 */
export function imageScores(values, { name, version, manifest }) {
  const { columns } = manifest.outputs[0];
  return [heading(name, version), ...values.map((value, i) => scoreOf(columns[i] ?? String(i), value))];
}

/**
 * @param {string} model
 * @param {number | string} version
 */
function heading(model, version) {
  return el("p", { class: "faint" }, `${model}, version ${version}`);
}

/**
 * @param {OutputTensor} output
 * @param {string[]} columns
 */
function rowsOf({ name, shape, data }, columns) {
  const rows = shape.length ? shape[0] : 1, width = rows ? data.length / rows : 0;
  const head = Array.from({ length: Math.min(width, SHOWN) }, (_, i) => (columns.length === width ? columns[i] : String(i)));
  /** @type {(row: number) => string[]} */
  const cells = (row) => head.map((_, i) => written(data[row * width + i]));
  const more = rows > SHOWN || width > SHOWN ? `; at most ${SHOWN} rows and columns are shown` : "";
  return el("div", null, el("p", { class: "faint" }, `${name}: ${shape.join(" × ") || "one number"}${more}`),
    rows > 0 && width > 0 && table({ label: name, className: "figures", head: ["", ...head],
      rows: Array.from({ length: Math.min(rows, SHOWN) }, (_, row) => [String(row), ...cells(row)]) }));
}

/** @param {number | string | boolean | undefined} value */
function written(value) {
  return typeof value === "number" ? figure(value, 6) : String(value);
}

/**
 * Show a number, and a bar where it can be a probability; what has a unit, even an unknown one, is none.
 *
 * @param {string} name
 * @param {number} value
 * @param {string} [unit]
 */
function scoreOf(name, value, unit) {
  const filled = el("span", { class: "fill" });
  filled.style.width = `${100 * value}%`;
  const bar = unit === undefined && value >= 0 && value <= 1 && el("span", { class: "bar", "aria-hidden": "true" }, filled);
  return el("div", { class: "score" }, el("span", null, name), el("data", { value }, figure(value), unit && ` ${unit}`), bar);
}

/**
 * Say at the field what the model has not seen in training; what has no field is said here.
 *
 * @param {Explained} explained
 * @param {Map<string, HTMLElement>} places
 */
export function warnings(explained, places) {
  const told = sentences(explained).map(([name, text]) => ({ place: places.get(branchOf(name)), text }));
  /** @param {string} text */
  const note = (text) => el("span", { class: "warning" }, text);
  for (const { place, text } of told) place?.append(note(text));
  const summary = told.length
    ? el("p", { class: "warning" }, `Unlike the training events: ${told.length}; see the notes at the fields.`)
    : el("p", { class: "faint" }, "Nothing is unlike the training events.");
  return [summary, ...told.filter(({ place }) => !place).map(({ text }) => el("p", null, note(text)))];
}

/**
 * @param {Explained} explained
 * @returns {[string, string][]}
 */
function sentences({ outside, truncated, missing, cuts = [] }) {
  /** @type {(found: Explained["outside"][string]) => string} */
  const range = ({ value, low, high }) =>
    `= ${figure(value)} is outside the training range ${figure(low)} … ${figure(high)}`;
  /** @type {(found: Explained["truncated"][string]) => string} */
  const length = ({ objects, kept }) => `${kept} of ${objects} objects are used`;
  /** @type {(name: string, text: string) => [string, string]} */
  const told = (name, text) => [name, text];
  return [
    ...Object.entries(outside).map(([name, found]) => told(name, `${name} ${range(found)}`)),
    ...Object.entries(truncated).map(([name, found]) => told(name, `${name}: ${length(found)}`)),
    ...missing.map((name) => told(name, `${name} has no value`)),
    ...cuts.map((sentence) => told("", `It ${sentence}.`)),
  ];
}

/**
 * Say what is wrong, at its field if it has one.
 *
 * @param {import("./api.js").ApiError} error
 * @param {Field[]} fields
 */
export function complaint(error, fields) {
  const wrong = error.field ?? "";
  const field = fields.find(({ name }) => name === wrong) ?? fields.find(({ name }) => name === branchOf(wrong));
  if (!field) return [el("p", { class: "bad", role: "alert" }, error.message)];
  field.note.append(el("span", { class: "bad" }, error.message));
  field.input.setAttribute("aria-invalid", "true");
  field.input.focus();
  return [el("p", { class: "bad" }, `${field.name} can't be used; see the note at the field.`)];
}

/**
 * Take the number of the object off the name of a value, as in Jet_pt[2].
 *
 * @param {string} name
 */
function branchOf(name) {
  return name.replace(/\[\d+\]$/, "");
}
