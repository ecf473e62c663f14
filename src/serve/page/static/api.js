// Talks to the server. The key is kept for this tab alone.

const KEY = "rootdata-api-key";

export class ApiError extends Error {
  constructor(status, { code, message, field } = {}) {
    super(message ?? `the server answered with status ${status}`);
    Object.assign(this, { status, code, field });
  }
}

export function setKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

export function keyHeaders() {
  const key = sessionStorage.getItem(KEY);
  return key ? { "X-API-Key": key } : {};
}

/** Ask for JSON; with a body, JSON or a form, POST it. Throws an ApiError for every bad answer, or none. */
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

export function pathOf(name, version) {
  const model = `models/${encodeURIComponent(name)}`;
  return version ? `${model}/versions/${version}` : model;
}

/** The address of a view of this page. */
export function linkTo(name, version) {
  return `#/${pathOf(name, version)}`;
}
