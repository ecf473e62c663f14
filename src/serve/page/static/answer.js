// What the server said of an event.

import { el, figure } from "./dom.js";

/** Show what the model says. */
export function scores({ model, version, scores }) {
  return [el("p", { class: "faint" }, `${model}, version ${version}`),
    ...Object.entries(scores).map(([name, [value]]) => scoreOf(name, value))];
}

function scoreOf(name, value) {
  const filled = el("span", { class: "fill" });
  filled.style.width = `${100 * Math.min(Math.max(value, 0), 1)}%`;
  const bar = el("span", { class: "bar", "aria-hidden": "true" }, filled);
  return el("div", { class: "score" }, el("span", null, name), el("data", { value }, figure(value)), bar);
}

/** Say at the field what the model has not seen in training; what has no field is said here. */
export function warnings(explained, places) {
  const told = sentences(explained).map(([name, text]) => [places.get(branchOf(name)), text]);
  const note = (text) => el("span", { class: "warning" }, text);
  for (const [place, text] of told) place?.append(note(text));
  const summary = told.length
    ? el("p", { class: "warning" }, `Unlike the training events: ${told.length}; see the notes at the fields.`)
    : el("p", { class: "faint" }, "Nothing is unlike the training events.");
  return [summary, ...told.filter(([place]) => !place).map(([, text]) => el("p", null, note(text)))];
}

function sentences({ outside, truncated, missing, cuts = [] }) {
  const range = ({ value, low, high }) =>
    `= ${figure(value)} is outside the training range ${figure(low)} … ${figure(high)}`;
  const length = ({ objects, kept }) => `${kept} of ${objects} objects are used`;
  return [
    ...Object.entries(outside).map(([name, found]) => [name, `${name} ${range(found)}`]),
    ...Object.entries(truncated).map(([name, found]) => [name, `${name}: ${length(found)}`]),
    ...missing.map((name) => [name, `${name} has no value`]),
    ...cuts.map((sentence) => ["", `It ${sentence}.`]),
  ];
}

/** Say what is wrong, at its field if it has one. */
export function complaint(error, fields) {
  const field = fields.find(({ branch }) => branch.name === branchOf(error.field ?? ""));
  if (!field) return [el("p", { class: "bad", role: "alert" }, error.message)];
  field.note.append(el("span", { class: "bad" }, error.message));
  field.input.setAttribute("aria-invalid", "true");
  field.input.focus();
  return [el("p", { class: "bad" }, `${field.branch.name} can't be used; see the note at the field.`)];
}

/** Take the number of the object off the name of a value, as in Jet_pt[2]. */
function branchOf(name) {
  return name.replace(/\[\d+\]$/, "");
}
