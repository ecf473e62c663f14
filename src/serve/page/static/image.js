// @ts-check
// The form to try an image: a file, or a made-up picture.

import { imageScores } from "./answer.js";
import { ask } from "./api.js";
import { el } from "./dom.js";
import { tryForm } from "./form.js";
import { curlForm } from "./payload.js";

const SIDE = 96; // pixels of the made-up picture, and of what is shown of a file
const TYPES = "image/png,image/jpeg";

/** @typedef {{ channels: number, height: number, width: number }} Layout */

/**
 * Say what image a model takes, or null; as serve.codec.image does.
 *
 * @param {Manifest} manifest
 * @returns {Layout | null}
 */
export function imageLayout({ inputs }) {
  const [spec, ...more] = inputs;
  if (!spec || more.length > 0 || spec.dtype !== "float32") return null;
  const sizes = spec.shape.slice(1).filter((size) => typeof size === "number");
  if (spec.shape.length !== 4 || sizes.length !== 3) return null;
  /** @type {(size: number) => boolean} */
  const hasChannels = (size) => size === 1 || size === 3;
  const [first, second, third] = sizes;
  if (hasChannels(first)) return { channels: first, height: second, width: third };
  return hasChannels(third) ? { height: first, width: second, channels: third } : null;
}

/**
 * @param {Model} model
 * @param {Layout} layout
 */
export function imageForm(model, { channels, height, width }) {
  const shown = el("canvas", { width: SIDE, height: SIDE, role: "img", "aria-label": "The picture that is scored" });
  const note = el("span", { class: "note", id: "image-note" });
  /** @type {HTMLInputElement} */
  const input = el("input", {
    id: "image", name: "image", type: "file", accept: TYPES, "aria-describedby": "image-note",
    onchange: () => draw(shown, input.files?.[0], note),
  });
  drawMadeUp(shown);
  const fields = { model: model.name, version: model.version };
  const score = async () => {
    const form = new FormData();
    for (const [name, value] of Object.entries(fields)) form.append(name, String(value));
    form.append("image", input.files?.[0] ?? await pngOf(shown), "picture");
    return imageScores(await ask("image", form), model);
  };
  const element = el("div", { class: "picture" }, shown,
    el("div", { class: "field" }, el("label", { for: "image" }, "PNG or JPEG"), input, note));
  const hint = `Scaled to ${width} × ${height} pixels, ${channels === 1 ? "gray" : "in colour"}; without a file the made-up picture.`;
  const command = () => curlForm(model, "image", { ...fields, image: `@${input.files?.[0]?.name ?? "picture.png"}` });
  return tryForm({ fields: [{ name: "image", input, note }], content: element, hint, score, command });
}

/**
 * Show a file; what the browser can't read may still be an image for the server.
 *
 * @param {HTMLCanvasElement} shown
 * @param {File | undefined} file
 * @param {HTMLElement} note
 */
async function draw(shown, file, note) {
  note.replaceChildren();
  const context = contextOf(shown);
  if (!file) return drawMadeUp(shown);
  context.clearRect(0, 0, SIDE, SIDE);
  try {
    context.drawImage(await createImageBitmap(file), 0, 0, SIDE, SIDE);
  } catch {
    note.append("The browser can't show it.");
  }
}

/** @param {HTMLCanvasElement} shown */
function drawMadeUp(shown) {
  const context = contextOf(shown);
  const colours = context.createLinearGradient(0, 0, SIDE, SIDE);
  ["#1f67a8", "#e8f0f8", "#c2571a"].forEach((colour, i) => colours.addColorStop(i / 2, colour));
  context.fillStyle = colours;
  context.fillRect(0, 0, SIDE, SIDE);
}

/** @param {HTMLCanvasElement} shown */
function contextOf(shown) {
  const context = shown.getContext("2d");
  if (!context) throw new Error("the browser can't draw");
  return context;
}

/**
 * @param {HTMLCanvasElement} shown
 * @returns {Promise<Blob>}
 */
function pngOf(shown) {
  return new Promise((resolve, reject) => shown.toBlob((blob) => {
    if (blob) resolve(blob);
    else reject(new Error("the browser can't write the picture"));
  }, "image/png"));
}
