// The uploads so far, the latest first, by state, principal and time.

import { announce, element } from "../dom.js";
import { STATE_NAMES, errorWords, principalName, stateTag, stateWord, uploadLink } from "./activity-states.js";
import { get } from "./api.js";
import { bytes, moment } from "./format.js";
import { rows } from "./table.js";
import { t, tn } from "./texts.js";

const PAGE = 50;
const MOST_PAGES = 20; // pages read for one that has a row: a rare state in a long journal
const EACH = 3000; // milliseconds between two updates of the list by itself
const UNFINISHED = new Set(["admitting", "receiving", "waiting", "deciding", "held", "committing", "unsettled"]);
const EACH_UNFINISHED = 6000;

const PERIODS = { "": () => t("any time"), 3600: () => t("last hour"), 86400: () => t("last day"), 604800: () => t("last week") };

/** Return the section; `section.note(latest, paused)` tells it which uploads ended. */
export function latestSection(session) {
  const mine = session.role !== "operator";
  const chosen = fromAddress();
  const filters = filterForm(chosen, mine, changed);
  const fresh = element("button", { type: "button", class: "plain small newer", hidden: true, onclick: showFresh });
  const columns = [
    { title: t("File"), kind: "head", cell: uploadLink },
    { title: t("State"), kind: "fit", cell: stateCell },
    { title: t("Size"), kind: "number", cell: (row) => bytes(row.bytes) },
    ...(mine ? [] : [{ title: t("From"), kind: "fit", cell: sender }]),
    { title: t("When"), kind: "fit", cell: (row) => moment(row.committed ?? row.created) },
  ];
  let deep = false;
  let unfinished = false;
  let listed = new Set();
  let shown; // the upload that ended last when the list was read, and the one that ended last
  let latestEnd;
  let looked = Date.now();
  const table = rows({ columns, label: t("Latest uploads"), empty: emptyText(session), load });

  async function load(cursor) {
    deep = cursor !== undefined;
    if (!deep) shown = latestEnd;
    const answer = await readPages(query(chosen), cursor);
    missing.hidden = !answer.unavailable?.length;
    if (!deep) listed = new Set(answer.rows.map((row) => row.upload_id));
    if (!deep) unfinished = answer.rows.some((row) => UNFINISHED.has(row.state));
    return answer;
  }
  const missing = element("p", { class: "hint", hidden: true }, t("A process does not answer: its uploads are missing in this list."));
  const place = element("section", { class: "stack tight", "aria-label": t("Latest uploads") },
    element("div", { class: "toolbar" }, element("h3", {}, t("Latest uploads")), element("span", { class: "fresh-place" }, fresh)),
    filters, missing, table);

  function changed() {
    history.replaceState(null, "", `?${new URLSearchParams(Object.entries(chosen).filter(([, value]) => value))}`);
    showFresh();
    announce(t("The list is filtered"));
  }
  function showFresh() {
    fresh.hidden = true;
    looked = Date.now();
    table.reload();
  }
  document.addEventListener("activity:decided", showFresh);
  place.note = (latest, paused) => {
    latestEnd = latest[0]?.upload_id ?? null;
    // What somebody reads, or has the focus in, stays as it is: a button says that there is more.
    const reading = paused || deep || place.matches(":focus-within") || table.matches(":hover");
    if (unfinished && !reading && Date.now() - looked > EACH_UNFINISHED) showFresh();
    if (latestEnd === shown || latestEnd === null) return;
    if (shown === undefined) { // the list was read before the first snapshot came
      shown = latestEnd;
      return reading || showFresh();
    }
    const at = latest.findIndex((row) => row.upload_id === shown);
    const count = latest.slice(0, at === -1 ? latest.length : at).filter((row) => !listed.has(row.upload_id) && matches(row, chosen)).length;
    if (!count) return;
    if (reading) {
      fresh.hidden = false;
      fresh.textContent = tn("Show {count} newer upload", "Show {count} newer uploads", count);
    } else if (Date.now() - looked > EACH) showFresh();
  };
  return place;
}

function matches(row, { state, principal }) {
  return (!state || row.state === state) && (!principal || row.principal?.name === principal);
}

function stateCell(row) {
  const words = row.error && row.state !== row.error ? errorWords(row.error) : "";
  return element("span", { class: "state-cell" }, stateTag(row.state), words && element("span", { class: "muted" }, words));
}

function sender(row) {
  return element("span", { class: "sender" }, row.principal && element("span", {}, principalName(row.principal), " "),
    row.remote && element("span", { class: "muted" }, row.remote));
}

/** Read pages until there is a row: a page of a rare state may have none, and still not be the last one. */
async function readPages(selected, cursor) {
  const list = [];
  let unavailable;
  for (let page = 0; page < MOST_PAGES; page += 1) {
    const answer = await get("uploads", { ...selected, limit: selected.state ? 200 : PAGE, cursor });
    list.push(...answer.uploads);
    unavailable = answer.unavailable;
    cursor = answer.next ?? undefined;
    if (!cursor || list.length >= PAGE / 2) break;
  }
  return { rows: list, next: cursor, unavailable };
}

function query({ state, principal, since }) {
  return {
    state: state || undefined,
    principal: principal || undefined,
    since: since ? new Date(Date.now() - since * 1000).toISOString() : undefined,
  };
}

function fromAddress() {
  const given = new URLSearchParams(location.search);
  const state = given.get("state") ?? "";
  const since = given.get("since") ?? "";
  return {
    state: STATE_NAMES.includes(state) ? state : "",
    principal: given.get("principal") ?? "",
    since: since in PERIODS ? since : "",
  };
}

function filterForm(chosen, mine, changed) {
  const state = select("state", t("State"), [["", t("any state")], ...STATE_NAMES.map((name) => [name, stateWord(name)])]);
  const since = select("since", t("Time"), Object.entries(PERIODS).sort(([a], [b]) => a - b).map(([value, label]) => [value, label()]));
  const principal = element("input", {
    type: "search", id: "filter-principal", value: chosen.principal, autocomplete: "off", spellcheck: "false",
    placeholder: t("everyone"), onchange: (event) => set("principal", event.target.value.trim()),
  });
  function set(name, value) {
    if (chosen[name] === value) return;
    chosen[name] = value;
    changed();
  }
  function select(name, label, options) {
    const control = element("select", { id: `filter-${name}`, onchange: (event) => set(name, event.target.value) },
      options.map(([value, text]) => element("option", { value, selected: chosen[name] === value }, text)));
    return element("div", { class: "filter" }, element("label", { for: `filter-${name}` }, label), control);
  }
  const from = element("div", { class: "filter" }, element("label", { for: "filter-principal" }, t("From")), principal);
  return element("form", { class: "filters", role: "search", "aria-label": t("Filters"), onsubmit: (event) => event.preventDefault() },
    state, mine ? null : from, since);
}

function emptyText(session) {
  const folder = session.uploads?.folder ?? "/upload/";
  return element("div", { class: "empty" },
    element("h3", {}, t("No uploads here")),
    element("p", {}, t("Uploads appear here as they come. Choose other filters, or send a file:")),
    element("pre", { tabindex: "0", "aria-label": t("Command") }, `curl -T FILE ${new URL(folder, location.href)}`));
}
