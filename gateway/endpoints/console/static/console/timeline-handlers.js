// One handler of an upload: its attempts, its errors, what it left.

import { element, lazyDetails } from "../dom.js";
import { address, get, post } from "./api.js";
import { moment } from "./format.js";
import { notify } from "./shell.js";
import { number, t, tn } from "./texts.js";
import { momentAfter, shortTime } from "./timeline-facts.js";

const STATES = {
  queued: ["", () => t("waits for its turn")],
  running: ["now", () => t("runs")],
  retry: ["warn", () => t("is tried again later")],
  done: ["good", () => t("done")],
  dead: ["bad", () => t("dead: it is tried no more")],
};
const OUTCOMES = { done: () => t("done"), retry: () => t("failed, to be tried again"), dead: () => t("failed for good") };

/** Return the step of a handler. */
export function handlerStep(handler, status, page) {
  const [kind, word] = STATES[handler.state] ?? ["", () => handler.state];
  const when = handler.runs?.at(-1)?.ended ?? null;
  const key = `${handler.event_id ?? ""} ${handler.handler}`;
  return element("li", { class: `step ${kind}` },
    element("div", { class: "step-head" },
      element("h3", {}, element("span", { dir: "auto" }, handler.handler), " ", element("span", { class: `tag ${kind === "now" ? "" : kind}` }, word())),
      when && momentAfter(when, status.created)),
    handler.event && element("p", { class: "muted" }, handler.event),
    handler.progress && progressOf(handler.progress),
    handler.due && element("p", {}, t("Next attempt"), " ", moment(handler.due), "."),
    handler.runs?.length ? runsOf(handler, status) : handler.error && element("pre", { class: "error-line" }, handler.error),
    handler.result && element("p", {}, t("Left"), " ", element("code", {}, JSON.stringify(handler.result))),
    page.operator && handler.event_id && operatorParts(handler, key, page));
}

function progressOf({ done, total }) {
  const text = total ? t("{done} of {total}", { done: number(done), total: number(total) }) : number(done);
  return element("div", {}, element("progress", { "aria-label": t("Progress"), max: total || undefined, value: total ? done : undefined }), element("p", { class: "muted" }, text));
}

// Each attempt, and how long the handler waited before it.
function runsOf({ runs }, status) {
  if (runs.length === 1 && runs[0].outcome === "done") {
    return element("p", { class: "muted" }, [t("Took {time}", { time: shortTime(runs[0].duration) }), runs[0].node].filter(Boolean).join(", "));
  }
  return element("ol", { class: "runs" }, runs.map((run, at) => {
    const began = new Date(run.ended) - run.duration * 1000;
    const before = at ? (began - new Date(runs[at - 1].ended)) / 1000 : 0;
    return element("li", {},
      element("p", {}, t("Attempt {number}: {outcome}", { number: run.attempt, outcome: OUTCOMES[run.outcome]?.() ?? run.outcome }), " ", momentAfter(run.ended, status.created)),
      element("p", { class: "muted" }, [t("took {time}", { time: shortTime(run.duration) }), before > 0.05 && t("{time} after the one before", { time: shortTime(before) }), run.node].filter(Boolean).join(", ")),
      run.error && element("pre", { class: "error-line", tabindex: "0", "aria-label": t("Error") }, run.error));
  }));
}

function operatorParts(handler, key, page) {
  const detailsKey = `details ${key}`;
  const failed = handler.error || handler.runs?.some((run) => run.error);
  const whole = failed && lazyDetails(t("Whole errors"), () => wholeErrors(handler), page.open.has(detailsKey));
  whole?.addEventListener?.("toggle", () => page.open[whole.open ? "add" : "delete"](detailsKey));
  return element("div", { class: "stack tight" }, whole, element("div", { class: "row" },
    handler.state === "dead" && element("button", { type: "button", class: "small", "data-key": `retry ${key}`, onclick: () => retry(handler, page) }, t("Retry")),
    handler.state === "retry" && element("button", { type: "button", class: "plain small", "data-key": `retry ${key}`, onclick: () => retry(handler, page) }, t("Retry now")),
    element("a", { href: address(`events/${encodeURIComponent(handler.event_id)}`), "data-key": `event ${key}` }, t("Open the event"))));
}

function wholeErrors(handler) {
  const place = element("div", { class: "stack tight" }, element("p", { class: "muted" }, t("Loading…")));
  get(`events/${encodeURIComponent(handler.event_id)}`).then((event) => {
    const runs = event.handlers.find((other) => other.handler === handler.handler)?.runs.filter((run) => run.error) ?? [];
    place.replaceChildren(...runs.map((run) => element("div", {},
      element("p", { class: "muted" }, t("Attempt {number}", { number: run.attempt })),
      element("pre", { tabindex: "0", "aria-label": t("Error") }, run.error))));
    if (!runs.length) place.textContent = t("Nothing more is kept.");
  }).catch((error) => { place.textContent = t(error.message); });
  return place;
}

async function retry(handler, page) {
  try {
    const { count } = await post("events/retry", { events: [handler.event_id], handler: handler.handler });
    notify(count ? tn("{count} delivery is tried again", "{count} deliveries are tried again", count) : t("Nothing was left to be tried again"));
  } catch (error) {
    notify(t(error.message), { kind: "bad" });
  }
  page.again();
}
