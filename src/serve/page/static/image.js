// The form to try an image: a file, or a made-up picture.

import { imageScores } from "./answer.js";
import { ask } from "./api.js";
import { el } from "./dom.js";
import { tryForm } from "./form.js";
import { curlForm } from "./payload.js";

const SIDE = 96; // pixels of the made-up picture, and of what is shown of a file
const TYPES = "image/png,image/jpeg";

/** Say what image a model takes, or null; as serve.codec.image does. */
export function imageLayout({ inputs }) {
  const [spec, ...more] = inputs;
  if (!spec || more.length > 0 || spec.dtype !== "float32") return null;
  const sizes = spec.shape.slice(1), hasChannels = (size) => size === 1 || size === 3;
  if (sizes.length !== 3 || !sizes.every(Number.isInteger)) return null;
  if (hasChannels(sizes[0])) return { channels: sizes[0], height: sizes[1], width: sizes[2] };
  return hasChannels(sizes[2]) ? { height: sizes[0], width: sizes[1], channels: sizes[2] } : null;
}

export function imageForm(model, { channels, height, width }) {
  const shown = el("canvas", { width: SIDE, height: SIDE, role: "img", "aria-label": "The picture that is scored" });
  const note = el("span", { class: "note", id: "image-note" });
  const input = el("input", {
    id: "image", name: "image", type: "file", accept: TYPES, "aria-describedby": "image-note",
    onchange: () => draw(shown, input.files[0], note),
  });
  drawMadeUp(shown);
  const fields = { model: model.name, version: model.version };
  const score = async () => {
    const form = new FormData();
    for (const [name, value] of Object.entries(fields)) form.append(name, value);
    form.append("image", input.files[0] ?? await pngOf(shown), "picture");
    return imageScores(await ask("image", form), model);
  };
  const element = el("div", { class: "picture" }, shown,
    el("div", { class: "field" }, el("label", { for: "image" }, "PNG or JPEG"), input, note));
  const hint = `Scaled to ${width} × ${height} pixels, ${channels === 1 ? "gray" : "in colour"}; without a file the made-up picture.`;
  const command = () => curlForm(model, "image", { ...fields, image: `@${input.files[0]?.name ?? "picture.png"}` });
  return tryForm({ fields: [{ name: "image", input, note }], content: element, hint, score, command });
}

/** Show a file; what the browser can't read may still be an image for the server. */
async function draw(shown, file, note) {
  note.replaceChildren();
  const context = shown.getContext("2d");
  if (!file) return drawMadeUp(shown);
  context.clearRect(0, 0, SIDE, SIDE);
  try {
    context.drawImage(await createImageBitmap(file), 0, 0, SIDE, SIDE);
  } catch {
    note.append("The browser can't show it.");
  }
}

function drawMadeUp(shown) {
  const context = shown.getContext("2d");
  const colours = context.createLinearGradient(0, 0, SIDE, SIDE);
  [["#1f67a8", 0], ["#e8f0f8", 0.5], ["#c2571a", 1]].forEach(([colour, at]) => colours.addColorStop(at, colour));
  context.fillStyle = colours;
  context.fillRect(0, 0, SIDE, SIDE);
}

function pngOf(shown) {
  return new Promise((resolve) => shown.toBlob(resolve, "image/png"));
}
