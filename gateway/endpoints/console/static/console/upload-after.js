// What became of a stored file: where it is, what its handlers do, and what they left.

import { element } from "../dom.js";
import { bytes } from "./format.js";
import { sentence, percent, percentOf, shownName } from "./upload-words.js";
import { number, t } from "./texts.js";

const MAX_RESULTS = 12;
const MAX_VALUE = 200;

/** Return the line of a stored job: `status` is that of `/-/uploads/<id>`, null before it is asked for. */
export function storedLine(job, status, downloads) {
  const path = status?.path ?? job.result?.path;
  const size = bytes(status?.bytes ?? job.size);
  const state = status?.state ?? job.result?.state;
  if (state === "held" || state === "deciding") return [t("Whole, and waiting for a decision"), " · ", size];
  if (state === "removed") return [t("Removed since"), " · ", size];
  if (!path) return [t("Stored"), " · ", size];
  const shown = element("bdi", { class: "path" }, shownName(path));
  const url = downloads && sameOrigin(job.result?.url);
  return [t("Stored as"), " ", url ? element("a", { href: url }, shown) : shown, " · ", size];
}

/** Return the reason why an upload was rejected behind its 202, "" where it was not. */
export function rejectionOf(status) {
  if (status.state !== "rejected" && status.state !== "failed") return "";
  const { handler, output, by, reason } = status.refusal ?? {};
  const words = sentence(String(reason ?? wordsOf(output) ?? ""));
  if (handler) return `${t("Rejected by {handler}.", { handler: shownName(handler) })} ${words}`.trim();
  if (by) return `${t("Rejected by {name}.", { name: shownName(String(by)) })} ${words}`.trim();
  return words || t("It was not stored: {code}.", { code: String(status.error ?? status.state) });
}

/** Return elements for handlers and results; none where there are none. */
export function aftermath(status) {
  const handlers = (status.handlers ?? []).map(handlerItem);
  const results = Object.entries(status.result ?? {});
  const rest = results.length - MAX_RESULTS;
  return [
    handlers.length > 0 && element("ul", { class: "handlers", "aria-label": t("Handlers") }, handlers),
    results.length > 0 && element("dl", { class: "results" }, results.slice(0, MAX_RESULTS).map(resultItem)),
    rest > 0 && element("p", { class: "muted" }, t("and {count} more", { count: number(rest) })),
  ].filter(Boolean);
}

const STATES = {
  queued: () => ["", t("waits")],
  running: () => ["", t("runs")],
  retry: () => ["warn", t("tries again")],
  done: () => ["good", t("done")],
  dead: () => ["bad", t("did not succeed")],
};

function handlerItem({ handler, state, attempt, error, progress }) {
  const [kind, word] = (STATES[state] ?? (() => ["", state]))();
  const far = state === "running" && progress?.total > 0 ? percentOf(progress.done, progress.total) : null;
  const label = t("Progress of {name}", { name: shownName(handler) });
  const why = state === "dead" || state === "retry" ? sentence(String(error ?? "")).slice(0, 300) : "";
  return element("li", { class: "handler", "data-state": state },
    element("span", { class: "handler-name" }, shownName(handler)),
    element("span", { class: `tag ${kind}` }, far === null ? word : percent(far)),
    state === "retry" && element("span", { class: "muted" }, t("after attempt {count}", { count: number(attempt) })),
    far !== null && element("progress", { max: 100, value: far, "aria-label": label }),
    why && element("span", { class: "why" }, why),
    state === "dead" && element("span", { class: "muted" },
      t("The file is stored all the same. An operator can run it again.")));
}

function resultItem([name, value]) {
  const text = typeof value === "string" ? value : JSON.stringify(value);
  const shown = shownName(text.length > MAX_VALUE ? `${text.slice(0, MAX_VALUE)}…` : text);
  const url = typeof value === "string" && /^https?:\/\//.test(value) && sameOrigin(value);
  return element("div", {}, element("dt", {}, shownName(name)),
    element("dd", {}, url ? element("a", { href: url }, shown) : element("bdi", {}, shown)));
}

/** Return a URL where it leads here, null for any other: what handlers leave may come from clients. */
function sameOrigin(text) {
  if (!text) return null;
  try {
    const url = new URL(text, location.href);
    return url.origin === location.origin && /^https?:$/.test(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

function wordsOf(output) {
  try {
    const told = JSON.parse(output);
    return typeof told === "string" ? told : told?.message ?? output;
  } catch {
    return output;
  }
}
