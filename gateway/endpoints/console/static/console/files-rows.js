// The rows of a folder. Only those in sight are elements, however many files there are: a grid (ARIA APG) whose
// rows have one height.

import { announce, element } from "../dom.js";
import { bytes, moment } from "./format.js";
import { nameElement, shownName } from "./files-names.js";
import { number, t, tn } from "./texts.js";

/** Rows above and below the window that are elements too. */
const SPARE_ROWS = 8;
const FAR = 10;

export class FileRows {
  /** `on` has `open(entry)`, `href(entry)`, `download(entry)` (a URL or null), `selection(entries)`, `remove()`. */
  constructor(on) {
    this.on = on;
    this.entries = [];
    this.selected = new Set();
    this.active = 0;
    this.anchor = 0;
    this.made = new Map();
    this.body = element("div", { role: "rowgroup", class: "files-rows", onclick: (event) => this.click(event), onkeydown: (event) => this.key(event), onfocusin: (event) => this.focused(event) });
    const draw = () => this.draw();
    addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
    addEventListener("resize", () => requestAnimationFrame(draw));
  }

  /** Show these entries in place of all others. What is selected stays so where it is still there. */
  show(entries) {
    this.entries = entries;
    const paths = new Set(entries.map(({ path }) => path));
    this.selected = new Set([...this.selected].filter((path) => paths.has(path)));
    this.active = Math.min(this.active, Math.max(0, entries.length - 1));
    this.anchor = this.active;
    this.made.forEach((row) => row.remove());
    this.made.clear();
    this.draw();
    this.tellSelection();
  }

  /** Show more entries behind the others. */
  append(entries) {
    this.entries = this.entries.concat(entries);
    this.draw();
  }

  /** Begin anew at the top, with nothing selected. */
  reset() {
    this.selected.clear();
    this.active = this.anchor = 0;
  }

  chosen() {
    return this.entries.filter(({ path }) => this.selected.has(path));
  }

  draw() {
    const height = this.rowHeight();
    this.body.style.height = `${this.entries.length * height}px`;
    const top = -this.body.getBoundingClientRect().top / height;
    const first = Math.max(0, Math.floor(top) - SPARE_ROWS);
    const end = Math.min(this.entries.length, Math.ceil(top + innerHeight / height) + SPARE_ROWS);
    const wanted = new Set();
    for (let index = first; index < end; index += 1) wanted.add(index);
    // The row that has the focus stays, wherever it is.
    if (this.active < this.entries.length) wanted.add(this.active);
    for (const [index, row] of this.made) {
      if (wanted.has(index)) continue;
      row.remove();
      this.made.delete(index);
    }
    let next = this.body.firstChild;
    for (const index of [...wanted].sort((one, other) => one - other)) {
      const there = this.made.get(index);
      const row = there ?? this.row(index);
      row.style.transform = `translateY(${index * height}px)`;
      if (there) next = there.nextSibling;
      else this.body.insertBefore(row, next);
    }
  }

  rowHeight() {
    const wide = matchMedia("(min-width: 40rem)").matches;
    return parseFloat(getComputedStyle(document.documentElement).fontSize) * (wide ? 2.75 : 3.75);
  }

  row(index) {
    const entry = this.entries[index];
    const folder = entry.kind === "folder";
    const name = shownName(entry.name);
    const selected = this.selected.has(entry.path);
    const tab = index === this.active ? 0 : -1;
    const box = element("input", { type: "checkbox", tabindex: tab, "aria-label": t("Select {name}", { name }), "data-part": "box" });
    box.checked = selected;
    const url = this.on.download(entry);
    const row = element("div", { role: "row", class: "files-row", "data-index": index, "aria-rowindex": index + 2, "aria-selected": String(selected) },
      element("div", { role: "gridcell", class: "files-box" }, element("label", {}, box)),
      element("div", { role: "gridcell", class: "files-name" },
        element("span", { class: folder ? "files-icon files-folder" : "files-icon", "aria-hidden": "true" }),
        element("a", { href: this.on.href(entry), title: name, tabindex: tab, "data-part": "name" }, nameElement(entry.name), folder && element("span", { class: "unseen" }, t("(folder)")))),
      element("div", { role: "gridcell", class: "files-size" }, folder ? "" : bytes(entry.bytes)),
      element("div", { role: "gridcell", class: "files-time" }, folder ? "" : moment(entry.modified)),
      element("div", { role: "gridcell", class: "files-get" }, url && element("a", { href: url, download: true, tabindex: tab,
        title: t("Download"), "aria-label": folder ? t("Download {name} as zip", { name }) : t("Download {name}", { name }) }, element("span", { class: "files-arrow", "aria-hidden": "true" }))),
    );
    this.made.set(index, row);
    return row;
  }

  // -- selection

  select(index, selected) {
    const entry = this.entries[index];
    if (!entry) return;
    if (selected) this.selected.add(entry.path);
    else this.selected.delete(entry.path);
    const row = this.made.get(index);
    if (!row) return;
    row.setAttribute("aria-selected", String(selected));
    row.querySelector("input").checked = selected;
  }

  selectRange(from, to, selected) {
    for (let index = Math.min(from, to); index <= Math.max(from, to); index += 1) this.select(index, selected);
    this.tellSelection();
  }

  selectAll(selected) {
    this.selectRange(0, this.entries.length - 1, selected);
    if (selected) announce(tn("{count} selected", "{count} selected", this.selected.size));
  }

  tellSelection() {
    this.on.selection(this.chosen());
  }

  // -- mouse and keyboard

  focused(event) {
    const row = event.target.closest("[data-index]");
    if (row) this.activate(Number(row.dataset.index));
  }

  click(event) {
    const row = event.target.closest("[data-index]");
    if (!row) return;
    const index = Number(row.dataset.index);
    this.activate(index);
    const part = event.target.closest("[data-part]")?.dataset.part;
    if (part === "box") {
      this.selectRange(event.shiftKey ? this.anchor : index, index, event.target.checked);
      this.anchor = index;
    }
    const plain = !event.ctrlKey && !event.metaKey && !event.shiftKey && event.button === 0;
    if (part === "name" && plain) {
      event.preventDefault();
      this.on.open(this.entries[index]);
    }
  }

  key(event) {
    const row = event.target.closest("[data-index]");
    if (!row || event.altKey) return;
    const index = Number(row.dataset.index);
    const last = this.entries.length - 1;
    const command = event.ctrlKey || event.metaKey;
    const moves = { ArrowDown: index + 1, ArrowUp: index - 1, Home: 0, End: last, PageDown: index + FAR, PageUp: index - FAR };
    if (event.key in moves && !command) this.move(index, Math.max(0, Math.min(last, moves[event.key])), event.shiftKey);
    else if (event.key === " ") this.space(index, event.shiftKey);
    else if (event.key.toLowerCase() === "a" && command) this.selectAll(true);
    else if (event.key === "Escape") this.selectAll(false);
    else if (event.key === "Delete") this.deleteAt(index);
    else return;
    event.preventDefault();
  }

  deleteAt(index) {
    if (!this.selected.size) this.selectRange(index, index, true);
    this.on.remove();
  }

  space(index, range) {
    const selected = range || !this.selected.has(this.entries[index].path);
    this.selectRange(range ? this.anchor : index, index, selected);
    this.anchor = index;
    const count = number(this.selected.size);
    announce(selected ? t("Selected, {count} in all", { count }) : t("Not selected, {count} in all", { count }));
  }

  move(from, to, extends_) {
    if (extends_) this.selectRange(this.anchor, to, true);
    else this.anchor = to;
    this.focus(to);
  }

  /** Give the focus to a row, and bring it into sight. */
  focus(index) {
    if (!this.entries.length) return;
    this.activate(Math.min(index, this.entries.length - 1));
    this.draw();
    const link = this.made.get(this.active).querySelector("[data-part=name]");
    link.focus({ preventScroll: true });
    this.made.get(this.active).scrollIntoView({ block: "nearest" });
  }

  /** Give the focus to the row of a file at a path, or of a folder at its place, if it is there. */
  focusPath(path) {
    const index = this.entries.findIndex((entry) => (entry.place ?? entry.path) === path);
    if (index >= 0) this.focus(index);
    return index >= 0;
  }

  activate(index) {
    if (index === this.active) return;
    const tab = (row, value) => row?.querySelectorAll("[tabindex]").forEach((part) => part.setAttribute("tabindex", value));
    tab(this.made.get(this.active), -1);
    this.active = index;
    tab(this.made.get(index), 0);
  }
}
