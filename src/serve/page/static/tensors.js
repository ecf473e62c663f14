// @ts-check
// The form to try tensors, for models of which nothing else is known: JSON for each input, with made-up values at first.

import { outputs } from "./answer.js";
import { ApiError, ask, pathOf } from "./api.js";
import { el } from "./dom.js";
import { tryForm } from "./form.js";
import { curl } from "./payload.js";

const FEW = 400; // numbers that are written out; more are one number that stands for all
const OPEN = { small: 4, large: 16 }; // sizes of axes that may have any; large from four axes on, as for images
/** @type {Record<string, string>} */
const DATATYPES = {
  bool: "BOOL", int8: "INT8", int16: "INT16", int32: "INT32", int64: "INT64", uint8: "UINT8", uint16: "UINT16",
  uint32: "UINT32", uint64: "UINT64", float16: "FP16", float32: "FP32", float64: "FP64", string: "BYTES",
};
/** @type {Record<string, boolean | string>} */
const MADE_UP = { bool: true, string: "a" };

/** @param {Model} model */
export function tensorForm(model) {
  const { name, version, manifest } = model;
  const sizes = sizesOf(manifest);
  const fields = manifest.inputs.map((spec, i) => fieldOf(spec, i, sizes, manifest));
  const path = `v2/${pathOf(name, version)}/infer`;
  const score = async () => {
    const answer = await ask(path, bodyOf(fields)).catch((error) => { throw located(error, fields); });
    return outputs(answer, manifest);
  };
  const command = () => {
    try {
      return curl(model, path, bodyOf(fields));
    } catch {
      return ""; // said when it is asked for
    }
  };
  const content = fields.map((field) => field.element);
  const hint = "Made-up values. Lists as nested as the shape; one number alone fills the whole tensor.";
  return tryForm({ fields, content, hint, score, command });
}

/**
 * Choose the sizes of axes that may have any, the same for those of one name; the first is mostly that of events.
 *
 * @param {Manifest} manifest
 * @returns {Map<string, number>}
 */
function sizesOf({ inputs, batching }) {
  const sizes = new Map();
  for (const { shape } of inputs) {
    for (const [i, axis] of shape.entries()) {
      const isEvents = i === 0 && (batching === "events" || inputs.length === 1);
      const size = isEvents ? 1 : shape.length > 3 ? OPEN.large : OPEN.small;
      if (typeof axis === "string") sizes.set(axis, isEvents ? 1 : Math.max(size, sizes.get(axis) ?? 0));
    }
  }
  return sizes;
}

/**
 * @param {TensorSpec} spec
 * @param {number} i
 * @param {Map<string, number>} sizes
 * @param {Manifest} manifest
 * @returns {TensorField}
 */
function fieldOf(spec, i, sizes, manifest) {
  const id = `tensor-${i}`, shape = spec.shape.map((axis) => (typeof axis === "number" ? axis : sizes.get(axis) ?? 1));
  const note = el("span", { class: "note", id: `${id}-note` });
  const isSmall = shape.reduce((a, b) => a * b, 1) <= FEW;
  const text = isSmall
    ? written(filled(shape, (at) => madeUp(spec, manifest.ranges[spec.features[at]])))
    : JSON.stringify(madeUp(spec));
  const input = el("textarea", {
    id, name: spec.name, rows: rowsFor(text), autocomplete: "off", spellcheck: "false",
    "aria-describedby": `${id}-hint ${id}-note`,
  });
  input.value = text;
  const names = spec.features.length ? `: ${spec.features.join(", ")}` : "";
  const hint = el("span", { class: "faint", id: `${id}-hint` },
    ` ${spec.dtype}, ${spec.shape.join(" × ") || "one number"}${names}`);
  const element = el("div", { class: "field" }, el("label", { for: id }, spec.name, hint), input, note);
  return { name: spec.name, spec, shape, input, note, element };
}

/** @param {string} text */
function rowsFor(text) {
  return Math.min(8, Math.max(text.split("\n").length, Math.ceil(text.length / 80)));
}

/**
 * Return a value that most graphs can be run on, for a feature what is usual for it.
 *
 * @param {TensorSpec} spec
 * @param {FeatureRange} [range] of the feature
 */
function madeUp({ dtype }, range) {
  if (dtype.startsWith("float")) return Number((range?.mean ?? 1).toPrecision(4));
  return MADE_UP[dtype] ?? 0;
}

/**
 * Make nested lists of a shape; a value depends on its place along the second axis, which is that of features.
 *
 * @param {number[]} shape
 * @param {(feature: number) => Nested} value
 * @param {number} [depth]
 * @param {number} [feature]
 * @returns {Nested}
 */
function filled(shape, value, depth = 0, feature = 0) {
  if (depth === shape.length) return value(feature);
  return Array.from({ length: shape[depth] }, (_, i) => filled(shape, value, depth + 1, depth === 1 ? i : feature));
}

/**
 * Write nested lists with a line for each row.
 *
 * @param {Nested} values
 */
function written(values) {
  const isMatrix = Array.isArray(values) && Array.isArray(values[0]);
  return isMatrix ? `[${values.map((row) => JSON.stringify(row)).join(",\n ")}]` : JSON.stringify(values);
}

/**
 * Write a request of the Open Inference Protocol. Numbers go as they were typed: some are too long for JavaScript.
 *
 * @param {TensorField[]} fields
 */
function bodyOf(fields) {
  const entries = fields.map((field) => {
    const { spec } = field, { shape, text } = parsed(field);
    return `{"name": ${JSON.stringify(spec.name)}, "shape": ${JSON.stringify(shape)}, `
      + `"datatype": "${DATATYPES[spec.dtype]}", "data": ${text}}`;
  });
  return `{"inputs": [${entries.join(", ")}]}`;
}

/**
 * Find the tensor that an error speaks of: on these paths it is named in the sentence alone.
 *
 * @param {ApiError} error
 * @param {TensorField[]} fields
 */
function located(error, fields) {
  const field = fields.find(({ name }) => error.message.startsWith(`input '${name}':`));
  return Object.assign(error, { field: error.field ?? field?.name });
}

/** @param {TensorField} field */
function parsed({ name, input, shape }) {
  const text = input.value.trim();
  let values;
  try {
    values = JSON.parse(text);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    const message = `${name}: this is no JSON (${why}); write lists such as [[1.5, 2], [3, 4]]`;
    throw new ApiError(0, { message, field: name });
  }
  if (Array.isArray(values)) return { shape: shapeOf(values), text };
  return { shape, text: `[${Array(shape.reduce((a, b) => a * b, 1)).fill(text).join(", ")}]` };
}

/**
 * @param {unknown} values
 * @returns {number[]}
 */
function shapeOf(values) {
  return Array.isArray(values) ? [values.length, ...(values.length ? shapeOf(values[0]) : [])] : [];
}
