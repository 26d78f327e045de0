// The backlog: how many deliveries wait, run and are dead, by handler; it is asked for anew every few seconds.

import { announce, element } from "../dom.js";
import { get, post } from "./api.js";
import { sparkline } from "./chart.js";
import { deliveries, listAddress, stateName } from "./events-model.js";
import { ago, moment } from "./format.js";
import { notify } from "./notify.js";
import { number, t } from "./texts.js";

const INTERVAL = 5000; // milliseconds between two counts
const SHARE = 20; // counting takes the journal's thread: a twentieth of the time at most
const SAMPLES = 120;
const MOST_HANDLERS = 200;
const COUNTED = ["ready", "running", "delayed", "dead"];

/**
 * Return the section of the backlog. `onCounts(counts)` is called with what is new: `{ depth, paused }`. `choose(filters)`
 * shows the deliveries of a handler in a state. `place.refresh()` counts at once, `place.counts` is the latest.
 */
export function backlog({ onCounts, choose }) {
  const figures = Object.fromEntries(["waiting", "running", "dead"].map((name) => [name, element("p", { class: "figure" }, "–")]));
  const samples = [];
  const chart = sparkline([], { label: t("Deliveries that wait or run"), format: number });
  const stale = element("p", { class: "failure", role: "status" });
  const table = handlerTable(choose, () => place.refresh());
  const none = element("p", { class: "muted", hidden: true }, t("Nothing waits, and nothing is dead."));
  const place = element("section", { class: "stack", "aria-label": t("Backlog") },
    stale,
    element("div", { class: "grid figures" },
      figure(t("Waiting"), figures.waiting), figure(t("Running"), figures.running), figure(t("Dead"), figures.dead),
      element("div", { class: "card trend" }, element("h3", {}, t("Last ten minutes")), chart)),
    none, table);
  let latest = null;
  let timer = 0;

  place.counts = { depth: [], paused: [] };
  place.refresh = async () => {
    clearTimeout(timer);
    const started = Date.now();
    try {
      const [{ depth }, { paused }] = await Promise.all([get("events/depth"), get("events/paused")]);
      latest = Date.now();
      stale.replaceChildren();
      show(depth, paused);
    } catch (error) {
      stale.textContent = latest === null ? t(error.message)
        : t("Not up to date: counted {ago}. {reason}", { ago: ago(new Date(latest)), reason: t(error.message) });
    }
    schedule(Math.max(INTERVAL, SHARE * (Date.now() - started)));
  };

  function schedule(wait) {
    clearTimeout(timer);
    timer = setTimeout(() => (document.hidden ? schedule(wait) : place.refresh()), wait);
  }

  function show(depth, paused) {
    const sum = (...states) => depth.filter(({ state }) => states.includes(state)).reduce((all, { count }) => all + count, 0);
    figures.waiting.textContent = number(sum("ready", "delayed"));
    figures.running.textContent = number(sum("running"));
    const dead = sum("dead");
    figures.dead.textContent = number(dead);
    figures.dead.classList.toggle("bad", dead > 0);
    samples.push(sum("ready", "delayed", "running"));
    if (samples.length > SAMPLES) samples.shift();
    chart.draw(samples);
    none.hidden = depth.length > 0 || paused.length > 0;
    table.hidden = !none.hidden;
    place.counts = { depth, paused };
    table.show(depth, paused);
    onCounts(place.counts);
  }

  document.addEventListener("visibilitychange", () => { if (!document.hidden) place.refresh(); });
  addEventListener("gateway:returned", () => place.refresh());
  return place;
}

function figure(title, value) {
  return element("div", { class: "card" }, element("h3", {}, title), value);
}

/** Return the table of handlers. Its rows stay the same elements, so that what has the focus keeps it. */
function handlerTable(choose, refresh) {
  const kept = new Map();
  const body = element("tbody", { role: "rowgroup" });
  const titles = [t("Handler"), ...COUNTED.map(stateName), t("Oldest"), ""];
  const table = element("table", { class: "rows handlers", role: "table", "aria-label": t("Backlog by handler"), hidden: true },
    element("thead", { role: "rowgroup" }, element("tr", { role: "row" }, titles.map((title, at) =>
      element("th", { role: "columnheader", scope: "col", class: at > 0 && at <= COUNTED.length ? "number" : undefined },
        title || element("span", { class: "unseen" }, t("Actions")))))),
    body);

  table.show = (depth, paused) => {
    const names = [...new Set([...depth.map(({ handler }) => handler), ...paused])].sort().slice(0, MOST_HANDLERS);
    const gone = [...kept.keys()].filter((name) => !names.includes(name) && !kept.get(name).contains(document.activeElement));
    for (const name of gone) {
      kept.get(name).remove();
      kept.delete(name);
    }
    names.forEach((name, at) => {
      if (!kept.has(name)) kept.set(name, handlerRow(name, choose, refresh));
      const row = kept.get(name);
      row.show(depth.filter(({ handler }) => handler === name), paused.includes(name));
      if (body.children[at] !== row) body.insertBefore(row, body.children[at] ?? null);
    });
  };
  return table;
}

function handlerRow(name, choose, refresh) {
  const tag = element("span", { class: "tag warn", hidden: true }, t("Paused"));
  const cells = Object.fromEntries(COUNTED.map((state) =>
    [state, element("td", { role: "cell", class: "number", "data-label": stateName(state) })]));
  const oldest = element("td", { role: "cell", "data-label": t("Oldest") });
  const button = element("button", { type: "button", class: "plain small", onclick: toggle });
  let paused = false;
  const row = element("tr", { role: "row" },
    element("th", { role: "rowheader", scope: "row" }, element("span", { class: "row" }, element("bdi", {}, name), tag)),
    Object.values(cells), oldest, element("td", { role: "cell", class: "fit" }, button));

  row.show = (depth, isPaused) => {
    paused = isPaused;
    tag.hidden = !paused;
    button.textContent = paused ? t("Resume") : t("Pause");
    button.setAttribute("aria-label", paused ? t("Resume {handler}", { handler: name }) : t("Pause {handler}", { handler: name }));
    for (const state of COUNTED) showCount(cells[state], state, depth.find((each) => each.state === state)?.count ?? 0);
    const first = depth.map((each) => each.oldest).sort()[0];
    oldest.replaceChildren(first ? moment(first) : "–");
  };

  function showCount(cell, state, count) {
    if (cell.dataset.count === String(count)) return;
    cell.dataset.count = count;
    const filters = { state, handler: name };
    const label = `${stateName(state)}: ${deliveries(count)} · ${name}`;
    cell.replaceChildren(count === 0 ? element("span", { class: "muted" }, "0")
      : element("a", { href: listAddress(filters), "aria-label": label, onclick: (event) => choose(filters, event) }, number(count)));
  }

  async function toggle() {
    button.disabled = true;
    try {
      await post(paused ? "events/resume" : "events/pause", { handler: name });
      announce(paused ? t("Resumed {handler}", { handler: name }) : t("Paused {handler}", { handler: name }));
      await refresh();
    } catch (error) {
      notify(t(error.message), { kind: "bad" });
    }
    button.disabled = false;
    button.focus();
  }
  return row;
}
