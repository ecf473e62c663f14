// @ts-check
// Shows the view that the address names, and asks for a key where the server does.

import { ask, keyHeaders, setKey } from "./api.js";
import { el } from "./dom.js";
import { listView } from "./list.js";
import { modelView } from "./model.js";

const main = found("main", HTMLElement);
const keyForm = found("key", HTMLFormElement);
const keyField = found("key-field", HTMLInputElement);
const keyNote = found("key-note", HTMLElement);
let shown = 0; // counts views: a slow answer must not replace a newer view

/**
 * Find an element of index.html.
 *
 * @template {HTMLElement} E
 * @param {string} id
 * @param {new () => E} kind
 * @returns {E}
 */
function found(id, kind) {
  const element = document.getElementById(id);
  if (!(element instanceof kind)) throw new Error(`index.html has no ${kind.name} '${id}'`);
  return element;
}

/** @returns {{ name?: string, version?: string }} */
function route() {
  const parts = /^#\/models\/([^/]+)(?:\/versions\/(\d+))?$/.exec(location.hash);
  return parts ? { name: decodeURIComponent(parts[1]), version: parts[2] } : {};
}

async function show({ focus = true } = {}) {
  const number = ++shown;
  main.setAttribute("aria-busy", "true");
  const view = await made().catch(failed);
  if (number !== shown) return;
  main.replaceChildren(view);
  main.removeAttribute("aria-busy");
  document.title = view.querySelector("h1")?.textContent ?? "rootdata";
  if (focus) main.focus({ preventScroll: true });
  scrollTo(0, 0);
}

async function made() {
  const { name, version } = route();
  /** @type {Settings} */
  const settings = await ask("page/settings.json");
  const hasKey = Object.keys(keyHeaders()).length > 0;
  keyForm.hidden = !settings.keys;
  keyField.placeholder = hasKey ? "in use" : "";
  if (settings.keys && !hasKey) return askForKey("");
  return name ? modelView({ name, wanted: version, settings }) : listView();
}

/** @param {import("./api.js").ApiError} error */
function failed(error) {
  if (error.status === 401) return askForKey(error.message);
  return el("div", null, el("h1", null, "That did not work"), el("p", { role: "alert" }, error.message));
}

/** @param {string} note */
function askForKey(note) {
  keyForm.hidden = false;
  keyNote.textContent = note;
  return el("div", null, el("h1", null, "A key is needed"),
    el("p", null, "This server asks for an API key. Enter yours above; it is kept until this tab is closed."));
}

keyForm.addEventListener("submit", (event) => {
  event.preventDefault();
  setKey(keyField.value.trim());
  keyForm.reset();
  keyNote.textContent = "";
  show();
});
found("skip", HTMLElement).addEventListener("click", (event) => {
  event.preventDefault(); // the part of the address after # names a view
  main.focus();
});
addEventListener("hashchange", () => show());
show({ focus: false });
