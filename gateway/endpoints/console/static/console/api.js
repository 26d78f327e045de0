// The API of the gateway, as every page calls it. What a page can do, a program can do too.

/** The URL of `/-/`, wherever a proxy has put it. */
export const API = new URL(document.body.dataset.api, location.href);

const FIRST_WAIT = 1000; // milliseconds until a try to reach the gateway again; doubled up to LAST_WAIT
const LAST_WAIT = 15000;

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

/** Return the address of the page to sign in at, which leads back to this one. */
export function signInAddress() {
  const url = new URL("session", API);
  url.searchParams.set("return", location.pathname + location.search + location.hash);
  return url;
}

/** Send a request; return its JSON, null for an empty answer. Raises `ApiError`. */
export async function call(method, url, { body, headers = {}, signal } = {}) {
  const options = { method, signal, cache: "no-store", headers: { Accept: "application/json", ...headers } };
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let response, text;
  try {
    response = await fetch(url instanceof URL ? url : address(url), options);
    text = await response.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    lost();
    throw new ApiError(0, "unreachable", "The gateway does not answer.");
  }
  const answer = parsed(text);
  if (response.ok) return answer;
  if (response.status === 401) tell("unauthorized");
  if (!answer?.error && [502, 503, 504].includes(response.status)) lost(); // a proxy answered for it
  const message = answer?.message ?? `The gateway answered with the status ${response.status}.`;
  throw new ApiError(response.status, answer?.error ?? "unknown", sentence(message), Number(response.headers.get("Retry-After") ?? 0));
}

export const get = (path, query, options) => call("GET", address(path, query), options);
export const post = (path, body = {}, options) => call("POST", address(path), { ...options, body });
export const remove = (path, query, options) => call("DELETE", address(path, query), options);

/**
 * Follow server-sent events of JSON: `onMessage(value)`, `onState("open" | "waiting" | "closed")`. It connects again
 * until it is closed, by what is returned, or until the session has ended ("closed").
 */
export function follow(path, query, onMessage, onState = () => {}) {
  let source = null;
  let wait = FIRST_WAIT;
  let timer = 0;
  const connect = () => {
    close();
    source = new EventSource(address(path, query));
    source.addEventListener("message", (event) => onMessage(JSON.parse(event.data)));
    source.addEventListener("open", () => { wait = FIRST_WAIT; onState("open"); });
    source.addEventListener("error", again);
  };
  const close = () => {
    clearTimeout(timer);
    timer = 0;
    source?.close();
  };
  const returned = () => { if (timer) connect(); };
  const stop = () => { removeEventListener("gateway:returned", returned); close(); };
  // A browser gives up where a proxy answers for the gateway, and waits as long as it likes where nothing answers.
  async function again() {
    close();
    onState("waiting");
    timer = setTimeout(connect, wait);
    wait = Math.min(wait * 2, LAST_WAIT);
    const session = await get("session").catch(() => ({})); // shows the banner where the gateway is away
    if (session.role !== null || !timer) return;
    stop();
    tell("unauthorized");
    onState("closed");
  }
  addEventListener("gateway:returned", returned);
  connect();
  return stop;
}

// -- whether the gateway answers

/** Whether the last request was answered by nothing. */
export let away = false;

/** Call `react` when the gateway answers again after it did not: `onReturn(() => load())`. */
export function onReturn(react) {
  addEventListener("gateway:returned", react);
}

function lost() {
  if (away) return;
  away = true;
  tell("away");
  setTimeout(probe, FIRST_WAIT, FIRST_WAIT);
}

async function probe(wait) {
  const next = Math.min(wait * 2, LAST_WAIT) * (0.75 + Math.random() / 4); // not all pages in the same moment
  const answer = await fetch(address("health"), { cache: "no-store" }).catch(() => null);
  if (!answer?.ok) return setTimeout(probe, next, next);
  away = false;
  tell("returned");
}

function tell(name) {
  dispatchEvent(new Event(`gateway:${name}`));
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
