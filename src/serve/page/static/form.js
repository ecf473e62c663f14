// @ts-check
// A form to try a model: a button that asks the server, its answer, and the command that asks the same.

import { complaint } from "./answer.js";
import { el } from "./dom.js";

const LONGEST = 20_000; // characters of a command that is shown; a terminal takes no longer line

/**
 * Make a form.
 *
 * @param {object} parts
 * @param {Field[]} parts.fields each with its name, input, and note, which is where what is wrong with it is said
 * @param {Content} parts.content elements of the form
 * @param {string} parts.hint
 * @param {() => Promise<Node[]>} parts.score asks the server, and resolves to the elements of the answer
 * @param {() => string} parts.command makes the text of the command, or "" where there is none
 */
export function tryForm({ fields, content, hint, score, command }) {
  const results = el("output", { "aria-live": "polite" });
  const button = el("button", { class: "main" }, "Score");
  const shown = el("pre", { tabindex: 0 });
  const details = el("details", null, el("summary", null, "The same with curl"), shown, copyButton(shown));
  const update = () => {
    const text = command();
    details.hidden = text === "" || text.length > LONGEST;
    shown.textContent = details.hidden ? "" : text;
    results.classList.toggle("old", results.childElementCount > 0);
  };
  /** @param {Event} event */
  const submit = async (event) => {
    event.preventDefault();
    button.disabled = true;
    clear(fields);
    try {
      results.replaceChildren(...await score());
    } catch (error) {
      results.replaceChildren(...complaint(/** @type {import("./api.js").ApiError} */ (error), fields));
    }
    results.classList.remove("old");
    button.disabled = false;
  };
  update();
  return el("form", { class: "try", novalidate: true, onsubmit: submit, oninput: update }, content,
    el("p", { class: "row" }, button, el("span", { class: "faint" }, hint)), results, details);
}

/** @param {HTMLElement} source */
function copyButton(source) {
  const copy = async () => {
    getSelection()?.selectAllChildren(source); // also for pages without the right to use the clipboard
    await navigator.clipboard?.writeText(source.textContent ?? "").then(() => button.replaceChildren("Copied"), () => {});
  };
  const button = el("button", { type: "button", onclick: copy }, "Copy");
  return button;
}

/** @param {Field[]} fields */
function clear(fields) {
  for (const { input, note } of fields) {
    note.replaceChildren();
    input.removeAttribute("aria-invalid");
  }
}
