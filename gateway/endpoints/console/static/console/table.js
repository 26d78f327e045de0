// A table that loads page after page, and is a list of cards where the page is narrow.

import { announce, byId, element } from "../dom.js";
import { t, tn } from "./texts.js";

/**
 * Return a table in its place: `rows({ columns, load, empty })`.
 *
 * `columns`: `[{ title: t("Name"), cell: (row) => text or element, kind: "head" | "number" | "fit" }]`; `head` names its row.
 * `load(cursor)`: resolves to `{ rows, next }`; `cursor` is `next` of the page before, undefined at first; no `next`: the end.
 * `empty`: an element that stands there where nothing is. `label`: what the table shows.
 * `onRow(tr, row)`: called for each row that is made.
 *
 * The place has `reload()`, which begins anew and keeps what is shown until the first page is there.
 */
export function rows({ columns, load, empty, label, onRow = () => {} }) {
  const body = element("tbody", { role: "rowgroup" });
  const table = element("table", { class: "rows", role: "table", "aria-label": label, hidden: true },
    element("thead", { role: "rowgroup" }, element("tr", { role: "row" }, columns.map(({ title, kind }) =>
      element("th", { role: "columnheader", scope: "col", class: kind === "head" ? undefined : kind },
        title || element("span", { class: "unseen" }, t("Actions")))))),
    body);
  const count = element("span", { class: "muted" });
  const more = element("button", { type: "button", class: "plain", onclick: () => more.ariaDisabled || page(false) }, t("Show more"));
  const failure = element("p", { class: "failure", role: "alert" });
  const foot = element("div", { class: "more", hidden: true }, more, count);
  const loading = element("p", { class: "muted loading", role: "status" }, t("Loading…"));
  const place = element("div", { class: "paged" }, loading, table, failure, foot);
  let cursor;
  let run = 0;

  async function page(anew) {
    const mine = (run += 1);
    more.ariaDisabled = "true"; // and not `disabled`, which would lose the focus
    failure.replaceChildren();
    try {
      const answer = await load(anew ? undefined : cursor);
      if (mine !== run) return;
      show(answer, anew);
    } catch (error) {
      if (mine !== run || error.name === "AbortError") return;
      loading.remove();
      failure.replaceChildren(t(error.message), " ",
        element("button", { type: "button", class: "plain small", onclick: () => page(anew) }, t("Try again")));
    }
    more.ariaDisabled = null;
  }

  function show(answer, anew) {
    const focused = document.activeElement === more;
    const made = answer.rows.map(row);
    loading.remove();
    if (anew) replace(made);
    else body.append(...made);
    cursor = answer.next;
    const shown = body.children.length;
    table.hidden = shown === 0;
    foot.hidden = shown === 0;
    more.hidden = !cursor;
    empty?.remove();
    if (empty && shown === 0) place.append(empty);
    count.textContent = tn("{count} shown", "{count} shown", shown);
    if (anew) return;
    announce(count.textContent);
    if (focused && more.hidden && made.length) {
      made[0].tabIndex = -1;
      made[0].focus();
    }
  }

  // What had the focus in a row that is gone: the same thing in the row at its place has it.
  function replace(made) {
    const focusable = (tr) => [...tr.querySelectorAll("a, button, input, select, summary")];
    const before = [...body.children].findIndex((tr) => tr.contains(document.activeElement));
    const at = before < 0 ? -1 : focusable(body.children[before]).indexOf(document.activeElement);
    body.replaceChildren(...made);
    if (before < 0) return;
    const next = made[Math.min(before, made.length - 1)];
    (next && (focusable(next)[at] ?? focusable(next)[0]) || byId("main")).focus({ preventScroll: true });
  }

  function row(value) {
    const made = element("tr", { role: "row" }, columns.map(({ title, cell, kind }) => {
      const head = kind === "head";
      return element(head ? "th" : "td", {
        role: head ? "rowheader" : "cell", scope: head && "row", class: head ? undefined : kind,
        "data-label": !head && title ? title : undefined,
      }, wrapped(cell(value)));
    }));
    onRow(made, value);
    return made;
  }

  place.reload = () => page(true);
  place.reload();
  return place;
}

// One element, so that a cell of a card has two columns: its label and this.
function wrapped(content) {
  if (content === null || content === undefined || content === "") return [];
  return content instanceof Element ? content : element("span", {}, content);
}
