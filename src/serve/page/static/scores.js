// @ts-check
// How the score of the test events is distributed in each sample, as SVG.

import { el, legend, svg } from "./dom.js";

const WIDTH = 560, HEIGHT = 260, LEFT = 74, RIGHT = 14, TOP = 12, BOTTOM = 56;

/**
 * Draw a histogram for each class that can be signal: its samples, each normalised to one.
 *
 * @param {Manifest["scores"]} scores
 */
export function scorePlots(scores) {
  return Object.entries(scores).map(([name, samples]) =>
    el("figure", { class: "scores" }, plot(name, samples), legend(Object.keys(samples))));
}

/**
 * @param {string} name
 * @param {Record<string, number[]>} samples
 */
function plot(name, samples) {
  const densities = Object.values(samples).map(normalised);
  const top = 1.05 * Math.max(...densities.flat(), 1e-9);
  /** @type {(value: number) => number} */
  const x = (value) => LEFT + value * (WIDTH - LEFT - RIGHT);
  /** @type {(value: number) => number} */
  const y = (value) => TOP + (1 - Math.max(value, 0) / top) * (HEIGHT - TOP - BOTTOM);
  /** @type {(bins: number[]) => string[]} */
  const steps = (bins) => bins.map((height, i) =>
    `${i ? "L" : "M"}${x(i / bins.length).toFixed(1)} ${y(height).toFixed(1)}H${x((i + 1) / bins.length).toFixed(1)}`);
  const title = `Score of ${name} in each sample`;
  return svg("svg", { class: "plot", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": title },
    [0, 0.2, 0.4, 0.6, 0.8, 1].map((tick) => [
      svg("path", { class: "grid", d: `M${x(tick)} ${TOP}V${HEIGHT - BOTTOM}` }),
      svg("text", { x: x(tick), y: HEIGHT - BOTTOM + 20, "text-anchor": "middle" }, tick)]),
    svg("path", { class: "grid", d: `M${LEFT} ${y(0)}H${WIDTH - RIGHT}` }),
    densities.map((bins, i) => svg("path", { class: `curve c${i % 6}`, d: steps(bins).join("") })),
    svg("text", { x: x(0.5), y: HEIGHT - 8, "text-anchor": "middle" }, `score of ${name}`),
    svg("text", { transform: `translate(16 ${(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)`, "text-anchor": "middle" },
      "share of events"));
}

/** @param {number[]} bins */
function normalised(bins) {
  const total = bins.reduce((a, b) => a + b, 0);
  return bins.map((bin) => (total > 0 ? bin / total : 0));
}
