// Deliveries as the pages of events know them: their states, what may be done with each, and where they link to.

import { element } from "../dom.js";
import { API } from "./api.js";
import { t, tn } from "./texts.js";

export const STATES = ["ready", "running", "delayed", "dead", "done", "relayed"];

/** The states that each action changes. */
export const CHANGES = { retry: ["dead", "delayed"], drop: ["dead", "delayed", "ready"], replay: ["done", "relayed"] };

const NAMES = {
  ready: () => t("Waiting"),
  running: () => t("Running"),
  delayed: () => t("Retrying"),
  dead: () => t("Dead"),
  done: () => t("Done"),
  relayed: () => t("In NATS"),
};
const KINDS = { dead: "bad", delayed: "warn", done: "good" };

/** Return a state in a word. */
export function stateName(state) {
  return NAMES[state]?.() ?? state;
}

/** Return a state as a coloured word. */
export function stateTag(state) {
  return element("span", { class: `tag ${KINDS[state] ?? ""}` }, stateName(state));
}

/** Return the address of the page of an event. */
export function eventAddress(id) {
  return new URL(`events/${encodeURIComponent(id)}`, API);
}

/** Return the address of the page of events with filters: `listAddress({ state: "dead", handler })`. */
export function listAddress(filters) {
  const url = new URL("events", API);
  for (const [name, value] of Object.entries(filters)) if (value || (name === "error" && value === "")) url.searchParams.set(name, value);
  return url;
}

/** Return the first line of an error: type and message. */
export function summary(error) {
  return readable((error ?? "").split("\n").find((line) => line.trim()) ?? "");
}

/** Return a text with what would change the direction of what follows, and other control characters, made visible. */
export function readable(text) {
  return text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");
}

/** Return a count of deliveries as text. */
export function deliveries(count) {
  return tn("{count} delivery", "{count} deliveries", count);
}
