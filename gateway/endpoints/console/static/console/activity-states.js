// How uploads are told on several pages: their state, who has sent them, where they are.

import { element } from "../dom.js";
import { address } from "./api.js";
import { nameElement, shownName } from "./files-names.js";
import { t } from "./texts.js";

const STATES = {
  admitting: ["", () => t("Starting")],
  receiving: ["", () => t("Receiving")],
  waiting: ["warn", () => t("Incomplete")],
  deciding: ["", () => t("Deciding")],
  held: ["warn", () => t("Held")],
  committing: ["", () => t("Storing")],
  unsettled: ["warn", () => t("Not known yet")],
  stored: ["good", () => t("Stored")],
  removed: ["", () => t("Removed")],
  rejected: ["bad", () => t("Rejected")],
  failed: ["bad", () => t("Failed")],
};

export const STATE_NAMES = Object.keys(STATES);

/** Return the word for a state. */
export function stateWord(state) {
  return STATES[state]?.[1]() ?? state;
}

/** Return the word for a state as a tag. */
export function stateTag(state) {
  const tag = element("span", {});
  setState(tag, state);
  return tag;
}

/** Show another state in a tag. */
export function setState(tag, state) {
  if (tag.dataset.state === state) return;
  tag.dataset.state = state;
  tag.className = `tag ${STATES[state]?.[0] ?? ""}`;
  tag.textContent = stateWord(state);
}

/** Return the name of a principal, a dash for nobody. */
export function principalName(principal) {
  return principal?.name ? shownName(principal.name) : "–";
}

/** Return a link to the page of an upload, with its path as the text. */
export function uploadLink(row) {
  return element("a", { href: address(`uploads/${encodeURIComponent(row.upload_id)}`), class: "upload-path" }, nameElement(row.path));
}

const ERRORS = {
  connection_lost: () => t("the connection was lost"),
  incomplete_body: () => t("the body was not whole"),
  idle_timeout: () => t("the client sent too slowly"),
  too_large: () => t("too large"),
  no_space: () => t("no space left"),
  stopping: () => t("the gateway was stopped"),
  unauthorized: () => t("not authorized"),
  forbidden: () => t("not allowed"),
  digest_mismatch: () => t("the digest is another one"),
  conflict: () => t("a file of this name is there"),
  rejected: () => t("a handler has rejected it"),
  expired: () => t("its time is over"),
};

/** Return an error code in words; one without words stays as it is. */
export function errorWords(code) {
  return ERRORS[code]?.() ?? code ?? "";
}
