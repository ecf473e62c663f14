// @ts-check
// The list of models, and the search in it.

import { ask, linkTo } from "./api.js";
import { el, figure, table } from "./dom.js";

const ROWS = 100; // of a table; more models are on further pages

/** Show all models; a search narrows them down while it is typed. */
export async function listView() {
  /** @type {Card[]} */
  const cards = await ask("models");
  const found = el("div");
  const count = el("p", { class: "faint", role: "status" });
  /** @type {HTMLInputElement} */
  const field = el("input", {
    id: "search", type: "search", placeholder: "name, tag or feature", autocomplete: "off", list: "words",
    oninput: () => search(field.value),
  });
  const words = [...new Set(cards.flatMap((card) => [...card.tags, ...(card.features ?? [])]))].sort();
  /** @param {string} text */
  const search = (text) => {
    field.value = text;
    const fitting = cards.filter((card) => fits(card, text));
    count.textContent = cards.length ? `${fitting.length} of ${cards.length} models` : "There are no models yet.";
    turn(fitting, 0);
  };
  /** @type {(fitting: Card[], start: number) => void} */
  const turn = (fitting, start) => {
    const shown = fitting.slice(start, start + ROWS);
    /** @type {(text: string, to: number) => HTMLElement} */
    const turned = (text, to) => el("button", {
      type: "button", disabled: to < 0 || to >= fitting.length, onclick: () => turn(fitting, to),
    }, text);
    const pages = el("nav", { class: "pages", "aria-label": "Pages" }, turned("Previous", start - ROWS),
      el("span", { role: "status" }, ` ${start + 1} to ${start + shown.length} of ${fitting.length} `),
      turned("Next", start + ROWS));
    found.replaceChildren(shown.length ? tableOf(shown, search) : "", fitting.length > ROWS ? pages : "");
  };
  search("");
  return el("div", null, el("h1", null, "Models"),
    el("form", { class: "search", role: "search", onsubmit: (event) => event.preventDefault() },
      el("label", { for: "search" }, "Search"), field,
      el("datalist", { id: "words" }, words.map((word) => el("option", { value: word }))), count),
    found);
}

/**
 * Tell whether every word is part of what is known of a model.
 *
 * @param {Card} card
 * @param {string} text
 */
function fits(card, text) {
  const prose = [card.name, card.author, card.description];
  const known = [...prose, ...card.tags, ...Object.keys(card.aliases), ...(card.features ?? [])];
  const lower = known.map((word) => (word ?? "").toLowerCase());
  return text.toLowerCase().split(/\s+/).every((word) => lower.some((one) => one.includes(word)));
}

/**
 * @param {Card[]} cards
 * @param {(text: string) => void} search
 */
function tableOf(cards, search) {
  return table({
    label: "Models", className: "stack", head: ["Model", "Version", "Aliases", "Tags", "AUC", "Created"],
    rows: cards.map((card) => [
      [el("a", { href: linkTo(card.name) }, card.name), el("p", { class: "faint" }, card.description), problems(card)],
      card.latest ?? "none",
      aliases(card),
      tags(card.tags, search),
      figure(card.metrics?.auc),
      day(card.created),
    ]),
  });
}

/**
 * Say why versions can't be used.
 *
 * @param {Card} card
 */
export function problems(card) {
  const sentences = [...Object.values(card.broken ?? {}), card.problem];
  return sentences.filter(Boolean).map((why) => el("p", { class: "bad" }, why));
}

/** @param {Card} card */
function aliases(card) {
  /** @type {(alias: [string, number]) => HTMLElement} */
  const chip = ([alias, version]) => el("span", { class: "chip" }, `${alias} → ${version}`);
  return Object.entries(card.aliases).map(chip);
}

/**
 * @param {string[]} words
 * @param {(text: string) => void} search
 */
function tags(words, search) {
  /** @type {(word: string) => HTMLElement} */
  const chip = (word) => el("button", { type: "button", class: "chip", onclick: () => search(word) }, word);
  return words.map(chip);
}

/**
 * Write a time as a day; the whole of it is shown when the pointer rests on it.
 *
 * @param {string} [created]
 */
export function day(created) {
  return created ? el("time", { datetime: created, title: created }, created.slice(0, 10)) : "";
}
