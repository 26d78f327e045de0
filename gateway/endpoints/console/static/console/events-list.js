// The list of deliveries: filters that stand in the address, pages by cursor, and what is done with what was chosen.

import { element } from "../dom.js";
import { get } from "./api.js";
import { actionName, change } from "./events-actions.js";
import { filterForm } from "./events-filters.js";
import { CHANGES, deliveries, eventAddress, readable, stateName, stateTag, summary } from "./events-model.js";
import { moment } from "./format.js";
import { notify } from "./notify.js";
import { rows } from "./table.js";
import { t, tn } from "./texts.js";

const PAGE = 50;
const COUNT_PAGE = 500;
const MOST_COUNTED = 5000; // deliveries that are counted before a question; then it says that there are more
const IDS = 500; // event ids of one request

/** Return the section of the list. `counts()` is the latest backlog, `changed()` is called after an action. */
export function deliveryList({ counts, changed }) {
  const chosen = new Map(); // rows by event and handler
  let shown = [];
  let tick = null;
  const heading = element("h3", { id: "deliveries", tabindex: "-1" }, t("Deliveries"));
  const filters = filterForm(() => { chosen.clear(); shown = []; table.reload(); drawBar(); });
  const job = element("div", {});
  const bar = element("div", { class: "toolbar selection", role: "group", "aria-label": t("What is selected") });
  const every = element("input", { type: "checkbox", id: "every-row", onchange: () => { chooseShown(every.checked); drawBar(); } });
  const table = rows({
    label: t("Deliveries"), load, onRow: (tr, row) => { if (chosen.has(keyOf(row))) tr.dataset.chosen = ""; },
    columns: [
      { title: "", kind: "fit choice", cell: box },
      { title: t("Event"), kind: "head", cell: eventCell },
      { title: t("Handler"), cell: (row) => element("bdi", {}, row.handler) },
      { title: t("State"), kind: "fit", cell: (row) => stateTag(row.state) },
      { title: t("Tries"), kind: "number", cell: (row) => String(row.attempt) },
      { title: t("Due"), kind: "fit", cell: (row) => (["ready", "delayed"].includes(row.state) ? moment(row.due) : null) },
      { title: t("Created"), kind: "fit", cell: (row) => moment(row.created) },
    ],
    empty: element("div", { class: "empty" }, element("strong", {}, t("No deliveries match")),
      element("p", {}, t("A delivery is an event for one handler: of an upload, a deletion, an object or a tick of a schedule. Finished ones are kept for a week, unless --retention says otherwise."))),
  });
  const place = element("section", { class: "stack tight", "aria-labelledby": "deliveries" }, heading, filters, bar, job, table);

  // -- reading

  async function load(cursor) {
    const answer = await get("events", { ...filters.query(), limit: PAGE, after: cursor });
    if (cursor === undefined) shown = [];
    shown.push(...answer.deliveries);
    if (cursor === undefined) {
      const there = new Set(shown.map(keyOf));
      for (const key of [...chosen.keys()]) if (!there.has(key)) chosen.delete(key);
    }
    for (const slot of answer.unavailable ?? []) notify(t("{process} does not answer: its deliveries are missing.", { process: slot }), { kind: "bad" });
    clearTimeout(tick);
    tick = setTimeout(drawBar);
    return { rows: answer.deliveries, next: answer.next };
  }

  place.show = (values) => {
    filters.set(values);
    heading.scrollIntoView({ block: "start" });
    heading.focus({ preventScroll: true });
  };
  /** Read the first page anew, unless the person is at work in the list. */
  place.follow = () => {
    if (chosen.size === 0 && shown.length <= PAGE && !table.contains(document.activeElement)) table.reload();
  };
  place.filters = filters;

  // -- choosing

  function box(row) {
    const input = element("input", {
      type: "checkbox", checked: chosen.has(keyOf(row)),
      "aria-label": t("Select {event} of {handler}", { event: row.path ?? row.event, handler: row.handler }),
      onchange: () => {
        if (input.checked) chosen.set(keyOf(row), row);
        else chosen.delete(keyOf(row));
        input.closest("tr").toggleAttribute("data-chosen", input.checked);
        drawBar();
      },
    });
    return element("label", { class: "box" }, input);
  }

  function chooseShown(all) {
    if (all) for (const row of shown) chosen.set(keyOf(row), row);
    else chosen.clear();
    for (const input of table.querySelectorAll("tbody input")) {
      input.checked = all;
      input.closest("tr").toggleAttribute("data-chosen", all);
    }
  }

  function drawBar() {
    every.checked = shown.length > 0 && chosen.size >= shown.length;
    every.indeterminate = chosen.size > 0 && !every.checked;
    every.disabled = shown.length === 0;
    const focus = bar.contains(document.activeElement) && document.activeElement.dataset.verb;
    const label = element("label", { for: "every-row" },
      chosen.size ? tn("{count} selected", "{count} selected", chosen.size) : t("Select all shown"));
    const picked = Object.keys(CHANGES).map((verb) => {
      const count = [...chosen.values()].filter(({ state }) => CHANGES[verb].includes(state)).length;
      return count > 0 && button(verb, `${actionName(verb)} ${count}`, () => actOnChosen(verb));
    });
    const matching = chosen.size === 0 && shown.length > 0 && verbsOf(filters.values()).map((verb) =>
      button(verb, t("{action} all that match", { action: actionName(verb) }), () => actOnMatching(verb)));
    bar.hidden = shown.length === 0;
    bar.replaceChildren(element("span", { class: "row box" }, every, label), ...[picked, matching].flat().filter(Boolean));
    if (focus) (bar.querySelector(`[data-verb="${focus}"]`) ?? every).focus();
  }

  function button(verb, label, act) {
    return element("button", { type: "button", class: `plain small ${verb === "drop" ? "danger" : ""}`, "data-verb": verb, onclick: act }, label);
  }

  // -- acting

  async function actOnChosen(verb) {
    const picked = [...chosen.values()].filter(({ state }) => CHANGES[verb].includes(state));
    const handlers = [...new Set(picked.map(({ handler }) => handler))];
    const selections = handlers.flatMap((handler) => {
      const ids = picked.filter((row) => row.handler === handler).map((row) => row.event_id);
      return Array.from({ length: Math.ceil(ids.length / IDS) }, (_, at) => ({ handler, events: ids.slice(at * IDS, (at + 1) * IDS) }));
    });
    await act(verb, { selections, total: picked.length, handlers });
  }

  async function actOnMatching(verb) {
    const query = filters.query();
    const selection = Object.fromEntries(Object.entries({ ...query, since: query.since && String(query.since) }).filter(([, value]) => value !== undefined));
    const states = query.state ? [query.state] : CHANGES[verb];
    // Without a filter all is named one by one: the API takes no empty selection.
    const selections = Object.keys(selection).length ? [selection] : states.map((state) => ({ state }));
    let counted;
    try {
      counted = await count(query, states, counts());
    } catch (error) {
      return notify(t(error.message), { kind: "bad" });
    }
    const handlers = query.handler ? [query.handler] : [...counted.handlers].sort();
    await act(verb, { selections, ...counted, handlers, error: query.error });
  }

  async function act(verb, what) {
    if (what.total === 0) return notify(t("Nothing that matches can be changed this way."), { kind: "bad" });
    const done = await change(verb, what, job);
    if (done === null) return;
    chosen.clear();
    table.reload();
    heading.focus({ preventScroll: true });
    await changed();
  }

  return place;
}

/** Count what matches: by the backlog where it says it, else page by page. */
async function count(query, states, { depth }) {
  const counted = ["ready", "running", "delayed", "dead"];
  if (query.since === undefined && query.error === undefined && states.every((state) => counted.includes(state))) {
    const matching = depth.filter(({ state, handler }) => states.includes(state) && (!query.handler || handler === query.handler));
    return { total: matching.reduce((sum, each) => sum + each.count, 0), handlers: new Set(matching.map(({ handler }) => handler)) };
  }
  const handlers = new Set();
  let total = 0;
  for (const state of states) {
    let after;
    do {
      const page = await get("events", { ...query, state, limit: COUNT_PAGE, after });
      total += page.deliveries.length;
      for (const { handler } of page.deliveries) handlers.add(handler);
      after = page.next ?? undefined;
      if (after && total >= MOST_COUNTED) return { total: null, atLeast: total, handlers };
    } while (after);
  }
  return { total, handlers };
}

function verbsOf({ state, error }) {
  if (error !== undefined) return ["retry", "drop"];
  return Object.keys(CHANGES).filter((verb) => (state ? CHANGES[verb].includes(state) : verb === "retry"));
}

function keyOf(row) {
  return `${row.event_id} ${row.handler}`;
}

function eventCell(row) {
  const error = row.state !== "done" && summary(row.error);
  return element("div", { class: "what" },
    element("a", { href: eventAddress(row.event_id), class: "path", title: `${row.event_id} · ${row.event}`,
      "aria-label": `${row.path ?? row.event} · ${deliveries(1)} · ${stateName(row.state)}` },
    element("bdi", {}, readable(row.path ?? row.event))),
    error && element("p", { class: "muted error" }, element("bdi", {}, error)));
}
