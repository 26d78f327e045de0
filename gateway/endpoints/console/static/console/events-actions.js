// Retry, drop and replay: the question before, the chunks, the progress, and what became of it.

import { announce, element } from "../dom.js";
import { post } from "./api.js";
import { confirm } from "./dialog.js";
import { readable } from "./events-model.js";
import { notify } from "./notify.js";
import { number, t, tn } from "./texts.js";

const SPOKEN = 5000; // milliseconds between two announcements of the progress

const TITLES = {
  retry: (count) => tn("Retry {count} delivery?", "Retry {count} deliveries?", count),
  drop: (count) => tn("Drop {count} delivery?", "Drop {count} deliveries?", count),
  replay: (count) => tn("Replay {count} delivery?", "Replay {count} deliveries?", count),
};
const UNCOUNTED = {
  retry: () => t("Retry all that match?"),
  drop: () => t("Drop all that match?"),
  replay: () => t("Replay all that match?"),
};
const EFFECTS = {
  retry: () => t("Their handlers run again at once, with all attempts."),
  drop: () => t("They are deleted for good: their handlers never run for these events. The files stay."),
  replay: () => t("They were handled before: their handlers run once more, and do their work again."),
};
const DONE = {
  retry: (count) => tn("Retried {count} delivery", "Retried {count} deliveries", count),
  drop: (count) => tn("Dropped {count} delivery", "Dropped {count} deliveries", count),
  replay: (count) => tn("Replayed {count} delivery", "Replayed {count} deliveries", count),
};

/** Return the name of an action. */
export function actionName(verb) {
  return { retry: t("Retry"), drop: t("Drop"), replay: t("Replay") }[verb];
}

let running = false;

/**
 * Change deliveries: `await change("drop", { selections, total, handlers, error }, place)`. Return how many; null: none,
 * as the person did not agree. Dropping and replaying ask first, with the number and the handlers.
 *
 * `selections` are bodies of the API; each is done chunk by chunk, and `place` shows how far it is. `total` is null
 * where it is not known, `atLeast` then says more of it.
 */
export async function change(verb, what, place) {
  if (running) {
    notify(t("Another action is still at work."), { kind: "bad" });
    return null;
  }
  if (verb !== "retry" && !(await agreed(verb, what))) return null;
  running = true;
  addEventListener("beforeunload", keepPage);
  const job = progress(verb, what.total, place);
  try {
    for (const selection of what.selections) await runChunks(verb, selection, job);
    notify(job.stopped ? t("{done}, then stopped", { done: DONE[verb](job.count) }) : DONE[verb](job.count));
  } catch (error) {
    notify(`${DONE[verb](job.count)}. ${t(error.message)}`, { kind: "bad" });
  } finally {
    running = false;
    removeEventListener("beforeunload", keepPage);
    place.replaceChildren();
  }
  return job.count;
}

async function agreed(verb, { total, atLeast, handlers, error }) {
  const title = total === null ? UNCOUNTED[verb]() : TITLES[verb](total);
  const names = handlers.slice(0, 5).join(", ") + (handlers.length > 5 ? ", …" : "");
  const text = [
    names && (handlers.length === 1 ? t("Handler: {name}", { name: names }) : t("Handlers: {names}", { names })),
    atLeast && t("There are more than {count}.", { count: number(atLeast) }),
    error && element("p", {}, element("code", {}, readable(error))),
    EFFECTS[verb](),
  ].filter(Boolean);
  const action = total === null ? actionName(verb) : TITLES[verb](total).replace(/[?？]\s*$/, "");
  return confirm({ title, text, action, danger: verb === "drop" });
}

/** Change chunk by chunk, until nothing is left or the person stops it. */
async function runChunks(verb, selection, job) {
  let after = null;
  do {
    if (job.stopped) return;
    const answer = await post(`events/${verb}`, { ...selection, after });
    job.add(answer.count);
    after = answer.next;
  } while (after !== null);
}

function progress(verb, total, place) {
  const text = element("span", {});
  const bar = element("progress", { max: total ?? undefined, value: total === null ? undefined : 0, "aria-label": actionName(verb) });
  const stop = element("button", { type: "button", class: "plain small", onclick: () => {
    job.stopped = true;
    stop.disabled = true;
  } }, t("Stop"));
  let spoken = Date.now();
  const job = {
    count: 0,
    stopped: false,
    add(count) {
      job.count += count;
      text.textContent = total === null || job.count > total ? DONE[verb](job.count)
        : t("{done} of {total}", { done: DONE[verb](job.count), total: number(total) });
      if (total !== null) bar.value = Math.min(job.count, total);
      if (Date.now() - spoken < SPOKEN) return;
      spoken = Date.now();
      announce(text.textContent);
    },
  };
  place.replaceChildren(element("div", { class: "card job" }, element("div", { class: "row" }, text, stop), bar));
  job.add(0);
  return job;
}

function keepPage(event) {
  event.preventDefault();
}
