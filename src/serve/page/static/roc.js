// @ts-check
// ROC curves as SVG, and the working points that a physicist would read off them.

import { el, figure, legend, svg, table } from "./dom.js";

const WIDTH = 560, HEIGHT = 380, LEFT = 74, RIGHT = 14, TOP = 12, BOTTOM = 56;
const WORKING_POINTS = [0.5, 0.7, 0.8, 0.9];
/** @typedef {{ title: string, of: (efficiency: number) => number, isLog: boolean }} View */

/** @type {Record<string, View>} */
const VIEWS = {
  efficiency: { title: "background efficiency", of: (b) => b, isLog: false },
  "efficiency, log": { title: "background efficiency", of: (b) => b, isLog: true },
  "rejection, log": { title: "background rejection (1 / efficiency)", of: (b) => 1 / b, isLog: true },
};

/**
 * Draw the curves of all classes, with a choice of what lies along the vertical axis.
 *
 * @param {Manifest["roc"]} roc
 */
export function rocPlot(roc) {
  const place = el("div");
  /** @type {HTMLSelectElement} */
  const choice = el("select", { id: "roc-axis", onchange: () => draw() },
    Object.keys(VIEWS).map((name) => el("option", { selected: name === "efficiency, log" }, name)));
  const draw = () => place.replaceChildren(plot(roc, VIEWS[choice.value]));
  draw();
  return el("div", { class: "roc" },
    el("figure", null,
      el("p", { class: "row" }, el("label", { for: "roc-axis" }, "Background"), choice), place, legend(Object.keys(roc))),
    workingPoints(roc));
}

/**
 * @param {Manifest["roc"]} roc
 * @param {View} view
 */
function plot(roc, view) {
  const curves = Object.values(roc).map((curve) => points(curve, view));
  const axis = axisOf(curves.flat().map(([, y]) => y), view.isLog);
  /** @type {(value: number) => number} */
  const x = (value) => LEFT + value * (WIDTH - LEFT - RIGHT);
  /** @type {(value: number) => number} */
  const y = (value) => TOP + (1 - axis.at(value)) * (HEIGHT - TOP - BOTTOM);
  /** @type {(curve: [number, number][]) => string} */
  const path = (curve) => curve.map(([a, b], i) => `${i ? "L" : "M"}${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join("");
  const title = `ROC: signal efficiency against ${view.title}`;
  return svg("svg", { class: "plot", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": title },
    [0, 0.2, 0.4, 0.6, 0.8, 1].map((tick) => [
      svg("path", { class: "grid", d: `M${x(tick)} ${TOP}V${HEIGHT - BOTTOM}` }),
      svg("text", { x: x(tick), y: HEIGHT - BOTTOM + 20, "text-anchor": "middle" }, tick)]),
    axis.ticks.map((tick) => [
      svg("path", { class: "grid", d: `M${LEFT} ${y(tick)}H${WIDTH - RIGHT}` }),
      svg("text", { x: LEFT - 8, y: y(tick) + 5, "text-anchor": "end" }, label(tick))]),
    curves.map((curve, i) => svg("path", { class: `curve c${i % 6}`, d: path(curve) })),
    svg("text", { x: x(0.5), y: HEIGHT - 8, "text-anchor": "middle" }, "signal efficiency"),
    svg("text", { transform: `translate(16 ${y(axis.middle)}) rotate(-90)`, "text-anchor": "middle" }, view.title));
}

/**
 * Pair efficiencies with what is drawn; where no background is left, a logarithm has no place for it.
 *
 * @param {RocCurve} curve
 * @param {View} view
 */
function points(curve, view) {
  /** @type {[number, number][]} */
  const pairs = curve.signal_efficiency.map((s, i) => [s, view.of(curve.background_efficiency[i])]);
  return view.isLog ? pairs.filter(([, y]) => y > 0 && Number.isFinite(y)) : pairs;
}

/**
 * @param {number[]} values
 * @param {boolean} isLog
 * @returns {{ at: (value: number) => number, ticks: number[], middle: number }}
 */
function axisOf(values, isLog) {
  if (!isLog) return { at: (value) => value, ticks: [0, 0.2, 0.4, 0.6, 0.8, 1], middle: 0.5 };
  const logs = values.map(Math.log10);
  const low = Math.floor(logs.reduce((a, b) => Math.min(a, b), 0) + 1e-9);
  const high = Math.max(Math.ceil(logs.reduce((a, b) => Math.max(a, b), 0) - 1e-9), low + 1);
  const ticks = Array.from({ length: high - low + 1 }, (_, i) => 10 ** (low + i));
  return { at: (value) => (Math.log10(value) - low) / (high - low), ticks, middle: 10 ** ((low + high) / 2) };
}

/** @param {number} tick */
function label(tick) {
  return tick >= 0.01 && tick <= 1000 ? figure(tick, 2) : tick.toExponential(0).replace("+", "");
}

/** @param {Manifest["roc"]} roc */
function workingPoints(roc) {
  /** @type {(name: string) => string} */
  const whose = (name) => (Object.keys(roc).length > 1 ? `, signal is ${name}` : "");
  /** @type {(what: string, curve: RocCurve, of: (efficiency: number) => number | null) => string[]} */
  const row = (what, curve, of) => [what, ...WORKING_POINTS.map((at) => figure(of(read(curve, at)), 3))];
  return table({
    label: "Working points", className: "figures", head: ["Signal efficiency", ...WORKING_POINTS.map(String)],
    rows: Object.entries(roc).flatMap(([name, curve]) => [
      row(`background efficiency${whose(name)}`, curve, (b) => b),
      row(`background rejection${whose(name)}`, curve, (b) => (b > 0 ? 1 / b : null)),
    ]),
  });
}

/**
 * Interpolate the background efficiency at a signal efficiency.
 *
 * @param {RocCurve} curve
 * @param {number} at
 */
function read({ signal_efficiency: s, background_efficiency: b }, at) {
  const i = s.findIndex((value) => value >= at);
  if (i <= 0) return b[0];
  return s[i] === s[i - 1] ? b[i] : b[i - 1] + ((b[i] - b[i - 1]) * (at - s[i - 1])) / (s[i] - s[i - 1]);
}
