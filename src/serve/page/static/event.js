// The form to try an event: filled in from the sample in the manifest, scored by the server.

import { complaint, scores, warnings } from "./answer.js";
import { ask } from "./api.js";
import { el, figure, shortest } from "./dom.js";
import { bodyOf, curl, predictPath } from "./payload.js";

export function eventForm(model) {
  const fields = model.manifest.branches.map((branch, i) => fieldOf(branch, i, model.manifest));
  const places = new Map(fields.map((field) => [field.branch.name, field.note]));
  const results = el("output", { "aria-live": "polite" });
  const button = el("button", { class: "main" }, "Score");
  const command = el("pre", { tabindex: 0 });
  const update = () => {
    command.textContent = curl(model, fields);
    results.classList.add("old");
  };
  const submit = async (event) => {
    event.preventDefault();
    button.disabled = true;
    clear(fields, places);
    try {
      const answer = await ask(`${predictPath(model)}?explain`, bodyOf(fields));
      results.replaceChildren(...scores(answer), ...warnings(answer.explain[0], places));
    } catch (error) {
      results.replaceChildren(...complaint(error, fields));
    }
    results.classList.remove("old");
    button.disabled = false;
  };
  const hint = el("span", { class: "faint" }, "Leave a field empty where a value is missing.");
  return el("form", { class: "event", novalidate: true, onsubmit: submit, oninput: update },
    sampleChoice(model.manifest, fields, update), groups(fields, model.manifest, places),
    el("p", { class: "row" }, button, hint),
    results,
    el("details", null, el("summary", null, "The same with curl"), command, copyButton(command)));
}

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
  return { branch, input, note, element };
}

/** Put numbers side by side, and the lists of a collection below one another. */
function groups(fields, { features }, places) {
  const groupOf = ({ branch }) => (branch.kind === "jagged" ? branch.counts ?? branch.name : "");
  return [...new Set(fields.map(groupOf))].map((name) => {
    const note = el("p", { class: "note" });
    if (name && !places.has(name)) places.set(name, note);
    return el("fieldset", { class: name ? "lists" : "numbers" },
      el("legend", null, name || "event", name && hintOf(features.jagged?.[name])),
      fields.filter((field) => groupOf(field) === name).map((field) => field.element), note);
  });
}

function hintOf(collection) {
  const used = collection?.length ? `; ${collection.length} are used` : "";
  return el("span", { class: "faint" }, ` one number for each object, with commas between${used}`);
}

function sampleChoice({ parity }, fields, update) {
  const columns = parity?.columns ?? {};
  const fill = (at) => {
    for (const { branch, input } of fields) input.value = written(columns[branch.name]?.[at] ?? null, branch);
    update();
  };
  const number = Math.max(0, ...Object.values(columns).map((column) => column.length));
  const choice = el("select", { id: "sample", onchange: () => fill(Number(choice.value)) },
    Array.from({ length: number }, (_, i) => el("option", { value: i }, String(i + 1))));
  fill(0);
  return number > 1 && el("p", { class: "row" }, el("label", { for: "sample" }, "Sample event"), choice);
}

function written(value, branch) {
  if (Array.isArray(value)) return value.map((one) => written(one, branch)).join(", ");
  return value === null ? "" : shortest(value, branch.dtype);
}

function copyButton(source) {
  const copy = async () => {
    getSelection().selectAllChildren(source); // also for pages without the right to use the clipboard
    await navigator.clipboard?.writeText(source.textContent).then(() => button.replaceChildren("Copied"), () => {});
  };
  const button = el("button", { type: "button", onclick: copy }, "Copy");
  return button;
}

function clear(fields, places) {
  for (const note of places.values()) note.replaceChildren();
  for (const { input } of fields) input.removeAttribute("aria-invalid");
}
