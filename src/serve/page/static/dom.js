// @ts-check
// Builds elements. Text is only ever set as text: a name with markup in it stays a name.

/**
 * Make an HTML element; what is null or false is left out, attributes that are functions ("on...") are listeners.
 *
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Attributes | null} [attributes]
 * @param {...Content} children
 */
export function el(tag, attributes, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/**
 * Make an SVG element.
 *
 * @template {keyof SVGElementTagNameMap} T
 * @param {T} tag
 * @param {Attributes | null} [attributes]
 * @param {...Content} children
 */
export function svg(tag, attributes, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

/**
 * @template {Element} E
 * @param {E} made
 * @param {Attributes | null | undefined} attributes
 * @param {Content[]} children
 */
function filled(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (typeof value === "function") made.addEventListener(name.slice(2), value);
    else if (isGiven(value)) made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...flat(children));
  return made;
}

/**
 * @param {Content[]} contents
 * @returns {(Node | string)[]}
 */
function flat(contents) {
  return contents.filter(isGiven).flatMap((content) => {
    if (Array.isArray(content)) return flat(content);
    return [content instanceof Node ? content : String(content)];
  });
}

/** @param {unknown} value */
function isGiven(value) {
  return value !== null && value !== undefined && value !== false;
}

/**
 * Make a table; a cell is text or an element, the first of a row is its heading.
 *
 * @param {{ label: string, head: string[], rows: Content[][], className?: string }} parts
 */
export function table({ label, head, rows, className = "" }) {
  /** @type {(content: Content, i: number) => HTMLElement} */
  const cell = (content, i) => el(i ? "td" : "th", { scope: i ? null : "row", "data-label": head[i] }, content);
  return el("div", { class: `scroll ${className}`, role: "region", "aria-label": label, tabindex: 0 },
    el("table", null,
      el("thead", null, el("tr", null, head.map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", null, rows.map((row) => el("tr", null, row.map(cell))))));
}

/**
 * Make a list of terms and what they stand for; entries without a value are left out.
 *
 * @param {[string, Content][]} entries
 * @param {string} [className]
 */
export function terms(entries, className = "terms") {
  /** @type {(entry: [string, Content]) => HTMLElement} */
  const pair = ([term, value]) => el("div", null, el("dt", null, term), el("dd", null, value));
  return el("dl", { class: className }, entries.filter(([, value]) => isGiven(value) && value !== "").map(pair));
}

/**
 * @param {string} title
 * @param {...Content} children
 */
export function section(title, ...children) {
  return el("section", null, el("h2", null, title), children);
}

/**
 * Name the curves of a plot, in the order of their colours.
 *
 * @param {string[]} names
 */
export function legend(names) {
  /** @type {(i: number) => Element} */
  const line = (i) => svg("svg", { viewBox: "0 0 20 8", width: 20, height: 8, "aria-hidden": "true" },
    svg("path", { d: "M0 4H20", class: `curve c${i % 6}` }));
  return el("figcaption", null, names.map((name, i) => el("span", { class: "key" }, line(i), name)));
}

/**
 * Write a number with at most some digits; nothing for none.
 *
 * @param {unknown} value
 * @param {number} [digits]
 */
export function figure(value, digits = 4) {
  return typeof value === "number" ? String(Number(value.toPrecision(digits))) : "";
}

/**
 * Write a number as short as its type tells it apart from its neighbours.
 *
 * @param {number | boolean | string} value
 * @param {string} dtype
 */
export function shortest(value, dtype) {
  if (dtype !== "float32" || typeof value !== "number") return String(value);
  const candidates = [6, 7, 8, 9].map((digits) => Number(value.toPrecision(digits)));
  return String(candidates.find((candidate) => Math.fround(candidate) === Math.fround(value)) ?? value);
}
