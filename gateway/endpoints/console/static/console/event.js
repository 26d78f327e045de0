// The page of one event: its body, and what each handler has made of it, run by run.

import { announce, copyButton, element, lazyDetails } from "../dom.js";
import { API, get, onReturn } from "./api.js";
import { actionName, change } from "./events-actions.js";
import { CHANGES, listAddress, readable, stateTag, summary } from "./events-model.js";
import { duration, moment } from "./format.js";
import { openPage } from "./shell.js";
import { number, t, tn } from "./texts.js";

const INTERVAL = 3000; // milliseconds, while a delivery is not finished
const SHOWN = 5; // runs that are shown at first, the latest
const UNFINISHED = ["ready", "running", "delayed", "relayed"];

openPage(() => t("Event"), async (main) => {
  const id = decodeURIComponent(location.pathname.split("/").at(-1));
  const path = `events/${encodeURIComponent(id)}`;
  const stale = element("p", { class: "failure", role: "status" });
  const content = element("div", { class: "stack" });
  let shown = "";
  let timer = 0;

  async function refresh() {
    clearTimeout(timer);
    let event;
    try {
      event = await get(path);
      stale.replaceChildren();
    } catch (error) {
      if (error.status === 404) return gone();
      if (!shown) throw error;
      stale.textContent = t("Not up to date: {reason}", { reason: t(error.message) });
      timer = setTimeout(refresh, INTERVAL);
      return;
    }
    const text = JSON.stringify(event);
    if (text !== shown) draw(event);
    if (shown && text !== shown) announce(t("The event has changed."));
    shown = text;
    if (event.handlers.some(({ state }) => UNFINISHED.includes(state))) timer = setTimeout(refresh, INTERVAL);
  }

  function gone() {
    shown = "";
    content.replaceChildren(element("div", { class: "empty" }, element("strong", {}, t("There is no such event")),
      element("p", {}, t("It was dropped, or it was finished longer ago than finished events are kept.")),
      element("p", {}, element("a", { href: listAddress({}) }, t("All events")))));
  }

  function draw(event) {
    const focus = document.activeElement?.dataset.key;
    const open = new Set([...content.querySelectorAll("details[open]")].map((each) => each.dataset.key));
    content.replaceChildren(...[
      element("h2", {}, element("bdi", {}, readable(event.path ?? event.type))),
      facts(event),
      ...event.handlers.map((delivery) => section(event, delivery, open, refresh)),
      event.handlers.length === 0 && element("p", { class: "muted" }, t("It has no handlers any more.")),
      keyed("body", open, t("Body of the event, as handlers get it"), () =>
        element("pre", { tabindex: "0" }, readable(JSON.stringify(event.body, null, 2)))),
    ].filter(Boolean));
    if (focus) [...content.querySelectorAll("[data-key]")].find((each) => each.dataset.key === focus)?.focus();
  }

  main.append(element("p", {}, element("a", { href: listAddress({}) }, t("All events"))), stale, content);
  onReturn(refresh);
  await refresh();
}, { role: "operator" });

function facts(event) {
  const fact = (name, ...value) => [element("dt", {}, name), element("dd", {}, value)];
  const upload = event.upload_id && element("a", { href: new URL(`uploads/${encodeURIComponent(event.upload_id)}`, API) }, event.upload_id);
  return element("dl", { class: "facts" },
    fact(t("Event"), event.type),
    fact(t("Id"), element("code", {}, event.id), " ", copyButton(t("Copy"), () => event.id)),
    fact(t("Created"), moment(event.created)),
    upload && fact(t("Upload"), upload));
}

/** Return the section of a delivery: its state, its actions, its runs. */
function section(event, delivery, open, refresh) {
  const { handler, state, attempt, runs, result } = delivery;
  const job = element("div", {});
  const due = state === "delayed" && [t("next attempt"), " ", moment(delivery.due)];
  const verbs = Object.keys(CHANGES).filter((verb) => CHANGES[verb].includes(state));
  const act = async (verb) => {
    const count = await change(verb, { selections: [{ handler, events: [event.id] }], total: 1, handlers: [handler] }, job);
    if (count !== null) await refresh();
  };
  return element("section", { class: "card delivery", "aria-label": handler },
    element("div", { class: "toolbar" },
      element("h3", { tabindex: "-1", "data-key": `handler ${handler}` }, element("bdi", {}, handler)), stateTag(state),
      verbs.map((verb) => element("button", {
        type: "button", class: `plain small ${verb === "drop" ? "danger" : ""}`, "data-key": `${verb} ${handler}`, onclick: () => act(verb),
      }, actionName(verb)))),
    element("p", { class: "muted" }, tn("{count} attempt", "{count} attempts", attempt), due && [" · ", due]),
    job,
    state === "dead" && runs.length === 0 && delivery.error && traceback(delivery.error),
    runList(handler, runs, open),
    result && keyed(`result ${handler}`, open, t("Result for the client"), () => element("pre", { tabindex: "0" }, readable(JSON.stringify(result, null, 2)))));
}

/** Return the runs, the latest first; the error of the latest is open. */
function runList(handler, runs, open) {
  if (runs.length === 0) return element("p", { class: "muted" }, t("No run has ended yet."));
  const latest = [...runs].reverse();
  const list = element("ol", { class: "runs" }, latest.slice(0, SHOWN).map(item));
  const rest = latest.slice(SHOWN);
  const more = rest.length > 0 && element("button", { type: "button", class: "plain small", "data-key": `more ${handler}`, onclick: () => {
    const made = rest.map((run, at) => item(run, at + SHOWN));
    list.append(...made);
    more.remove();
    made[0].tabIndex = -1;
    made[0].focus();
  } }, tn("Show {count} earlier run", "Show {count} earlier runs", rest.length));

  function item(run, at) {
    const key = `run ${handler} ${run.ended} ${run.attempt}`;
    const error = run.error && keyed(key, open, element("bdi", {}, summary(run.error)), () => traceback(run.error), at === 0);
    return element("li", {},
      element("p", { class: "row" }, outcomeTag(run.outcome), element("span", {}, t("Attempt {number}", { number: number(run.attempt) })),
        element("span", { class: "muted" }, moment(run.ended), " · ", seconds(run.duration), run.node && [" · ", t("on {node}", { node: run.node })])),
      error);
  }
  return element("div", {}, list, more);
}

function outcomeTag(outcome) {
  const [kind, text] = { done: ["good", t("Done")], retry: ["warn", t("Failed")], dead: ["bad", t("Failed for good")] }[outcome] ?? ["", outcome];
  return element("span", { class: `tag ${kind}` }, text);
}

function traceback(error) {
  return element("pre", { class: "traceback", tabindex: "0" }, readable(error));
}

function seconds(value) {
  return value < 10 ? t("{count} s", { count: number(value, { maximumFractionDigits: 3 }) }) : duration(value);
}

function keyed(key, open, title, content, first = false) {
  const details = lazyDetails(title, content, open.has(key) || (first && open.size === 0));
  details.dataset.key = key;
  return details;
}
