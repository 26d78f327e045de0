// The API of the gateway, as every page calls it. What a page can do, a program can do too.

/** The URL of `/-/`, wherever a proxy has put it. */
export const API = new URL(document.body.dataset.api, location.href);

/** What the gateway refused, or why it could not be asked: `status` is 0 where nothing answered. */
export class ApiError extends Error {
  constructor(status, code, message, retryAfter = 0) {
    super(message);
    Object.assign(this, { status, code, retryAfter });
  }
}

/** Return the URL of an endpoint: `address("events", { state: "dead" })`. A list is a repeated field. */
export function address(path, query = {}) {
  const url = new URL(path, API);
  for (const [name, value] of Object.entries(query)) {
    for (const one of [value].flat()) if (one !== undefined && one !== null) url.searchParams.append(name, one);
  }
  return url;
}

/** Send a request; return its JSON, null for an empty answer. Raises `ApiError`. */
export async function call(method, url, { body, headers = {}, signal } = {}) {
  const options = { method, signal, cache: "no-store", headers: { Accept: "application/json", ...headers } };
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(url instanceof URL ? url : address(url), options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "unreachable", "The gateway does not answer.");
  }
  const text = await response.text();
  const answer = parsed(text);
  if (response.ok) return answer;
  const message = answer?.message ?? `The gateway answered with the status ${response.status}.`;
  throw new ApiError(response.status, answer?.error ?? "unknown", sentence(message), Number(response.headers.get("Retry-After") ?? 0));
}

export const get = (path, query, options) => call("GET", address(path, query), options);
export const post = (path, body = {}, options) => call("POST", address(path), { ...options, body });
export const remove = (path, query, options) => call("DELETE", address(path, query), options);

/** Follow server-sent events of JSON: `onMessage(value)`, `onState("open" | "waiting")`. Return what closes it. */
export function follow(path, query, onMessage, onState = () => {}) {
  const source = new EventSource(address(path, query));
  source.addEventListener("message", (event) => onMessage(JSON.parse(event.data)));
  source.addEventListener("open", () => onState("open"));
  source.addEventListener("error", () => onState(source.readyState === EventSource.CLOSED ? "closed" : "waiting"));
  return () => source.close();
}

function parsed(text) {
  try {
    return text ? JSON.parse(text) : null;
  } catch {
    return null;
  }
}

function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
