// Shows the view that the address names, and asks for a key where the server does.

import { ask, keyHeaders, setKey } from "./api.js";
import { el } from "./dom.js";
import { listView } from "./list.js";
import { modelView } from "./model.js";

const main = document.getElementById("main");
const keyForm = document.getElementById("key");
const keyNote = document.getElementById("key-note");
let shown = 0; // counts views: a slow answer must not replace a newer view

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
  document.title = view.querySelector("h1").textContent;
  if (focus) main.focus({ preventScroll: true });
  scrollTo(0, 0);
}

async function made() {
  const { name, version } = route();
  const settings = await ask("page/settings.json");
  const hasKey = Object.keys(keyHeaders()).length > 0;
  keyForm.hidden = !settings.keys;
  keyForm.elements["key-field"].placeholder = hasKey ? "in use" : "";
  if (settings.keys && !hasKey) return askForKey("");
  return name ? modelView({ name, wanted: version, settings }) : listView();
}

function failed(error) {
  if (error.status === 401) return askForKey(error.message);
  return el("div", null, el("h1", null, "That did not work"), el("p", { role: "alert" }, error.message));
}

function askForKey(note) {
  keyForm.hidden = false;
  keyNote.textContent = note;
  return el("div", null, el("h1", null, "A key is needed"),
    el("p", null, "This server asks for an API key. Enter yours above; it is kept until this tab is closed."));
}

keyForm.addEventListener("submit", (event) => {
  event.preventDefault();
  setKey(keyForm.elements["key-field"].value.trim());
  keyForm.reset();
  keyNote.textContent = "";
  show();
});
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the part of the address after # names a view
  main.focus();
});
addEventListener("hashchange", () => show());
show({ focus: false });
