// @ts-check
// The card of one version of a model.

import { ask, linkTo, pathOf } from "./api.js";
import { el, figure, section, table, terms } from "./dom.js";
import { eventForm } from "./event.js";
import { imageForm, imageLayout } from "./image.js";
import { day, problems } from "./list.js";
import { rocPlot } from "./roc.js";
import { scorePlots } from "./scores.js";
import { tensorForm } from "./tensors.js";

/** @param {{ name: string, wanted?: string, settings: Settings }} what */
export async function modelView({ name, wanted, settings }) {
  /** @type {Card} */
  const card = await ask(pathOf(name));
  const version = wanted ?? card.latest;
  const head = [el("h1", null, name), versions(card, Number(version)), problems(card)];
  if (!version) return el("div", null, head, el("p", null, "No version of this model can be used."));
  /** @type {{ manifest: Manifest }} */
  const { manifest } = await ask(pathOf(name, version));
  const model = { name, version: Number(version), latest: card.latest, manifest, settings };
  return el("div", null, head,
    about(card, manifest),
    performance(manifest),
    tries(model),
    section("Inputs", inputs(manifest), chosen(manifest), networks(manifest)),
    section("Outputs", tensors("Outputs", manifest.outputs, withUnits)),
    settings.graph && section("Graph", graph(model)),
    section("How it was made", origin(manifest), files(model)));
}

/**
 * @param {Card} card
 * @param {number} current
 */
function versions(card, current) {
  /** @type {(version: number) => string[]} */
  const names = (version) => Object.entries(card.aliases).filter(([, v]) => v === version).map(([alias]) => alias);
  /** @type {(version: number) => string[]} */
  const words = (version) => [String(version), version === card.latest ? "latest" : "", ...names(version)];
  /** @type {(version: number) => HTMLElement} */
  const link = (version) => el("a", {
    class: "chip", href: linkTo(card.name, version), "aria-current": version === current && "page",
  }, words(version).filter(Boolean).join(" · "));
  return el("nav", { class: "versions", "aria-label": "Versions" }, "Version", card.versions.map(link));
}

/**
 * Offer what fits the model: an event by the names of its branches, or else an image, and tensors.
 *
 * @param {Model} model
 */
function tries(model) {
  if (model.manifest.branches.length > 0) return section("Try an event", eventForm(model));
  const layout = imageLayout(model.manifest);
  return [layout && section("Try an image", imageForm(model, layout)), section("Try tensors", tensorForm(model))];
}

/**
 * @param {Card} card
 * @param {Manifest} manifest
 */
function about(card, manifest) {
  return el("div", null,
    manifest.description && el("p", { class: "lead" }, manifest.description),
    terms([["Author", manifest.author], ["Created", day(manifest.created)], ["Tags", card.tags.join(", ")]]));
}

/** @param {Manifest} manifest */
function performance({ metrics, roc, scores = {} }) {
  /** @type {(metric: [string, number]) => [string, string]} */
  const written = ([name, value]) => [name === "auc" ? "AUC" : name, figure(value, 6)];
  const figures = Object.entries(metrics).map(written);
  const hasRoc = Object.keys(roc).length > 0;
  return (hasRoc || figures.length > 0) && section("Test events", terms(figures, "tiles"), hasRoc && rocPlot(roc),
    scorePlots(scores));
}

/** @param {Manifest} manifest */
function inputs({ branches, ranges, features, inputs: specs }) {
  if (!branches.length) return tensors("Inputs", specs, (spec) => spec.features);
  /** @type {(name: string) => string[]} */
  const seen = (name) => {
    const range = ranges[name];
    if (!range) return ["", "", "", ""];
    const { low, high, mean, std, missing } = range;
    return [`${figure(low)} … ${figure(high)}`, figure(mean), figure(std), `${figure(100 * missing, 2)} %`];
  };
  const sent = new Set(branches.map((branch) => branch.name));
  const derived = Object.keys(ranges).filter((name) => !sent.has(name));
  /** @type {(name: string) => string} */
  const formula = (name) => String(features.derived?.[name] ?? "");
  return table({
    label: "Inputs", className: "figures",
    head: ["Branch", "Type", "Kind", "Unit", "Training range", "Mean", "Std", "Missing"],
    rows: [
      ...branches.map((branch) => [branch.name, branch.dtype, kindOf(branch), branch.unit, ...seen(branch.name)]),
      ...derived.map((name) => [name, "", `derived ${formula(name)}`, "", ...seen(name)]),
    ],
  });
}

/**
 * Say which events the network was trained on.
 *
 * @param {Manifest} manifest
 */
function chosen({ selection }) {
  const own = Object.entries(selection?.samples ?? {}).map(([name, { cut }]) => ({ cut, of: `, for ${name}` }));
  const cuts = [{ cut: selection?.cut, of: "" }, ...own].filter(({ cut }) => cut);
  return cuts.length > 0 && el("p", null, "Trained on events that pass ",
    cuts.map(({ cut, of }, i) => [i ? "; " : "", el("code", null, cut), of]), ".");
}

/**
 * Say which of several networks scores an event.
 *
 * @param {Manifest} manifest
 */
function networks({ folds }) {
  if (!folds) return null;
  const each = `${folds.count} networks, each trained without the events of one fold. `;
  if (folds.rule === "average") return el("p", null, each, "A score is the mean of all of them.");
  return el("p", null, each, "The one that has not seen an event scores it, by the remainder of ", el("code", null, folds.by),
    ` divided by ${folds.count}; where that is missing, as in data, a score is the mean of all.`);
}

/** @param {Branch} branch */
function kindOf({ kind, counts, width }) {
  if (kind === "jagged") return `list: ${counts ?? ""}`;
  return kind === "fixed" ? `${width} numbers` : "number";
}

/**
 * Name the columns of an output, each with its unit where there is one.
 *
 * @param {OutputSpec} spec
 */
function withUnits({ columns, units = [] }) {
  return columns.map((name, i) => (units[i] ? `${name} (${units[i]})` : name));
}

/**
 * @template {TensorSpec | OutputSpec} S
 * @param {string} label
 * @param {S[]} specs
 * @param {(spec: S) => string[]} columns
 */
function tensors(label, specs, columns) {
  return table({
    label, head: ["Tensor", "Type", "Shape", "Columns"],
    rows: specs.map((spec) => [spec.name, spec.dtype, spec.shape.join(" × "), columns(spec).join(", ")]),
  });
}

/**
 * Offer the drawing of the network; it is fetched when it is asked for.
 *
 * @param {Model} model
 */
function graph({ name, version }) {
  const address = `page/netron/index.html?${new URLSearchParams({ name, version: String(version) })}`;
  const place = el("div");
  const button = el("button", { type: "button", onclick: () => {
    place.replaceChildren(el("iframe", { src: address, title: `Graph of ${name}, version ${version}` }));
    button.remove();
  } }, "Show the graph");
  // The tab that opens shares the key of this one.
  const link = el("a", { href: address, target: "_blank", rel: "opener" }, "Open it in a tab");
  return [el("p", { class: "row" }, button, link), place];
}

/** @param {Manifest} manifest */
function origin({ parity, software, training }) {
  const compared = parity
    ? `Compared with the torch network on ${parity.num_events} events; `
      + `the largest difference of any score is ${figure(parity.max_difference, 2)}.`
    : "The graph was not compared with the network that it was made from.";
  const configuration = JSON.stringify(training, null, 2);
  return [el("p", null, compared), terms(Object.entries(software), "tiles"),
    configuration !== "{}"
      && el("details", null, el("summary", null, "Training configuration"), el("pre", { tabindex: 0 }, configuration))];
}

/** @param {Model} model */
function files({ name, version, manifest, settings }) {
  if (settings.keys) return null; // a plain link can't send a key
  /** @type {(file: string) => string} */
  const address = (file) => `${pathOf(name, version)}/${file}`;
  /** @type {(file: string) => HTMLElement} */
  const link = (file) => el("a", { href: address(file), download: `${name}-${version}-${file}` }, file);
  const units = [{ bytes: 1e6, word: "MB" }, { bytes: 1e3, word: "kB" }];
  const { bytes, word } = units.find((unit) => manifest.size >= unit.bytes) ?? { bytes: 1, word: "bytes" };
  const size = `${figure(manifest.size / bytes, 3)} ${word}`;
  return el("p", null, "Download: ", link("model.onnx"), ` (${size}), `, link("manifest.json"));
}
