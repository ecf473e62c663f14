// @ts-check
// Talks to the server. The key is kept for this tab alone.

const KEY = "rootdata-api-key";

/** @typedef {{ code?: string, message?: string, field?: string | null }} Told */

export class ApiError extends Error {
  /**
   * @param {number} status
   * @param {Told} [told]
   */
  constructor(status, { code, message, field } = {}) {
    super(message ?? `the server answered with status ${status}`);
    this.status = status;
    this.code = code;
    this.field = field;
  }
}

/** @param {string} key */
export function setKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

/** @returns {Record<string, string>} */
export function keyHeaders() {
  const key = sessionStorage.getItem(KEY);
  return key ? { "X-API-Key": key } : {};
}

/**
 * Ask for JSON; with a body, JSON or a form, POST it. Throws an ApiError for every bad answer, or none.
 *
 * @param {string} path
 * @param {string | FormData} [body]
 * @returns {Promise<any>}
 */
export async function ask(path, body) {
  const headers = { ...keyHeaders(), ...(typeof body === "string" ? { "Content-Type": "application/json" } : {}) };
  let answer;
  try {
    answer = await fetch(path, { method: body === undefined ? "GET" : "POST", headers, body });
  } catch {
    throw new ApiError(0, { message: "the server can't be reached" });
  }
  const plain = await answer.json().catch(() => ({}));
  // The paths of the Open Inference Protocol say what is wrong in one string.
  if (!answer.ok) throw new ApiError(answer.status, typeof plain.error === "string" ? { message: plain.error } : plain.error);
  return plain;
}

/**
 * @param {string} name
 * @param {number | string | null} [version]
 */
export function pathOf(name, version) {
  const model = `models/${encodeURIComponent(name)}`;
  return version ? `${model}/versions/${version}` : model;
}

/**
 * The address of a view of this page.
 *
 * @param {string} name
 * @param {number} [version]
 */
export function linkTo(name, version) {
  return `#/${pathOf(name, version)}`;
}
