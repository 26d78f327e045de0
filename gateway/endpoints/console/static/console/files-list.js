// The list of a folder or a search: its pages, its order, and what is said where there is nothing.

import { announce, element } from "../dom.js";
import { API, onReturn, signInAddress } from "./api.js";
import { bytes } from "./format.js";
import { quotedName } from "./files-names.js";
import { FileRows } from "./files-rows.js";
import { number, t, tn } from "./texts.js";

/** Matches after which a search waits for the person to ask for more. */
const PAUSE_AFTER = 500;
const RETRY_SECONDS = 3;

export class FileList {
  constructor(source, on) {
    Object.assign(this, { source, next: null, done: true, loading: false });
    const download = (entry) => (entry.kind === "folder" ? source.zipUrl(entry) : source.downloads ? source.url(entry) : null);
    const selection = (entries) => { this.all.checked = entries.length > 0 && entries.length === this.rows.entries.length; on.selection(entries); };
    this.rows = new FileRows({ ...on, download, selection });
    this.all = element("input", { type: "checkbox", "aria-label": t("Select all that are shown"), "data-key": "all", onclick: () => this.rows.selectAll(this.all.checked) });
    this.summary = element("p", { class: "muted files-summary" });
    this.trouble = element("div", { class: "files-trouble", role: "alert" });
    this.header = element("div", { role: "row", class: "files-row files-header", "aria-rowindex": 1 });
    this.grid = element("div", { role: "grid", class: "files-grid", "aria-label": t("Files"), "aria-multiselectable": "true" },
      element("div", { role: "rowgroup" }, this.header), this.rows.body);
    this.empty = element("div", { class: "empty" });
    this.moreButton = element("button", { type: "button", class: "plain", onclick: () => this.more() }, t("Show more"));
    this.stopButton = element("button", { type: "button", class: "plain small", onclick: () => this.stop() }, t("Stop"));
    this.element = element("div", { class: "files-list" },
      element("div", { class: "row files-status" }, this.summary, this.stopButton), this.trouble, this.grid, this.empty,
      element("div", { class: "files-more" }, this.moreButton), this.keys = keyHints());
    onReturn(() => { if (this.away) this.pages(); });
    new IntersectionObserver(([seen]) => { if (seen.isIntersecting && !this.place?.search) this.more(); }, { rootMargin: "600px" }).observe(this.moreButton);
  }

  // -- loading

  /** Load the first page of a place. `keep`: of the same one again, so what is selected stays. */
  async load(place, { keep = false } = {}) {
    this.abort?.abort();
    this.abort = new AbortController();
    clearTimeout(this.retry);
    Object.assign(this, { place, next: null, done: false, searched: 0, loading: false, fresh: true });
    if (!keep) {
      this.rows.reset();
      this.rows.show([]);
      this.folder = null;
      this.order = null;
      scrollTo(0, 0);
    }
    await this.pages();
    announce(this.summary.textContent);
  }

  more() {
    return this.done || this.loading ? undefined : this.pages();
  }

  stop() {
    this.abort.abort();
    this.abort = new AbortController();
    this.loading = false;
    this.draw();
  }

  /** Load a page; of a search as many as it takes to find some names. */
  async pages() {
    const { signal } = this.abort;
    clearTimeout(this.retry);
    Object.assign(this, { loading: true, away: false });
    this.draw();
    try {
      const before = this.rows.entries.length;
      do {
        const page = await this.source.list(this.place.path, { cursor: this.next ?? undefined, search: this.place.search, signal });
        if (signal.aborted) return;
        this.add(page);
      } while (this.place.search && !this.done && this.rows.entries.length < before + PAUSE_AFTER);
      this.loading = false;
      this.draw();
    } catch (error) {
      if (error.name !== "AbortError" && !signal.aborted) this.fail(error);
    }
  }

  add(page) {
    this.trouble.replaceChildren();
    const { entries } = page;
    const first = this.fresh;
    Object.assign(this, { next: page.next, done: page.next === null, folder: page, fresh: false });
    this.searched += page.searched ?? 0;
    if (first && this.done && !this.place.search) {
      this.order ??= ["name", 1];
      this.rows.show(sorted(entries, this.order));
    } else if (first) this.rows.show(entries);
    else this.rows.append(entries);
    this.draw();
  }

  fail(error) {
    this.loading = false;
    const home = this.place.path === this.source.home;
    if (error.status === 404 && this.fresh && (home || this.place.search)) {
      this.rows.show([]);
      Object.assign(this, { fresh: false, done: true, folder: null });
      this.trouble.replaceChildren();
    } else if (error.status === 404 && this.fresh) {
      this.rows.show([]);
      this.trouble.replaceChildren(this.gone());
    } else if (error.status === 401) {
      location.replace(signInAddress());
    } else {
      // The banner below the bar tells of a gateway that does not answer, and when it does again.
      this.away = error.status === 0;
      const busy = error.status === 429 || error.status === 503;
      if (busy) this.retry = setTimeout(() => this.pages(), (error.retryAfter || RETRY_SECONDS) * 1000);
      const old = this.away && this.rows.entries.length > 0;
      this.trouble.replaceChildren(element("div", { class: "failure" },
        element("p", {}, old ? t("This list may be old.") : t(error.message), busy || this.away ? ` ${t("The page tries again by itself.")}` : ""),
        element("button", { type: "button", class: "plain small", onclick: () => this.pages() }, t("Try again"))));
    }
    this.draw();
  }

  gone() {
    return element("div", { class: "failure" },
      element("p", {}, t("This folder is not there (any more).")),
      element("a", { href: "?" }, t("To all files")));
  }

  /** Leave out files that were removed. */
  drop(paths) {
    this.rows.show(this.rows.entries.filter(({ path }) => !paths.has(path)));
    this.draw();
  }

  // -- order

  /** The whole folder is here, so that it can be in another order than that of the list. */
  get whole() {
    return this.done && !this.loading;
  }

  sort(key) {
    const same = this.order?.[0] === key;
    this.order = [key, same ? -this.order[1] : key === "name" ? 1 : -1];
    this.rows.show(sorted(this.rows.entries, this.order));
    this.draw();
  }

  column(key, label) {
    const [ordered, direction] = this.order ?? [];
    const state = this.whole && ordered === key ? (direction > 0 ? "ascending" : "descending") : "none";
    const mark = { ascending: "↑", descending: "↓", none: "" }[state];
    const sortable = this.whole && this.rows.entries.length > 1;
    return element("div", { role: "columnheader", class: `files-${key}`, "aria-sort": sortable ? state : undefined },
      sortable ? element("button", { type: "button", class: "files-sort", "data-key": key, onclick: () => this.sort(key) }, label, element("span", { "aria-hidden": "true" }, mark)) : label);
  }

  // -- what is shown around the rows

  draw() {
    const count = this.rows.entries.length;
    const focused = this.header.contains(document.activeElement) ? document.activeElement.dataset.key ?? "all" : null;
    this.header.replaceChildren(
      element("div", { role: "columnheader", class: "files-box" }, element("label", {}, this.all)),
      this.column("name", t("Name")), this.column("size", t("Size")), this.column("time", t("Changed")),
      element("div", { role: "columnheader", class: "files-get" }, element("span", { class: "unseen" }, t("Download"))));
    if (focused) this.header.querySelector(`[data-key=${focused}]`)?.focus();
    this.grid.hidden = count === 0;
    this.keys.hidden = count === 0;
    this.grid.setAttribute("aria-rowcount", this.whole ? count + 1 : -1);
    this.element.setAttribute("aria-busy", String(this.loading));
    // What is loaded again is told of when it is here.
    if (!this.fresh || !count) this.summary.textContent = this.summaryText();
    this.stopButton.hidden = !(this.loading && this.place.search);
    this.moreButton.hidden = this.done || this.loading || this.trouble.hasChildNodes();
    this.empty.replaceChildren(...(count || !this.whole ? [] : this.emptyText()));
    this.empty.hidden = !this.empty.hasChildNodes();
    this.rows.draw();
  }

  summaryText() {
    const { entries } = this.rows;
    if (this.loading && !entries.length && !this.place.search) return t("Loading…");
    if (this.place.search) {
      const matches = tn("{count} match", "{count} matches", entries.length);
      const looked = tn("{count} file searched", "{count} files searched", this.searched);
      const state = this.loading ? t("searching…") : this.done ? t("complete") : t("there may be more");
      return [matches, looked, state].join(" · ");
    }
    if (!entries.length) return "";
    const files = entries.filter(({ kind }) => kind === "file");
    if (!this.done) return t("The first {count} by name: scroll for more, or search. A larger folder is not sorted.", { count: number(entries.length) });
    const size = bytes(files.reduce((sum, entry) => sum + entry.bytes, 0));
    const folders = entries.length - files.length;
    return [
      folders > 0 && tn("{count} folder", "{count} folders", folders),
      tn("{count} file", "{count} files", files.length), size,
    ].filter(Boolean).join(" · ");
  }

  emptyText() {
    if (this.place.search) return [element("h3", {}, t("No name here contains {text}.", { text: quotedName(this.place.search) }))];
    const upload = element("a", { class: "button", href: new URL("..", API) }, t("Upload files"));
    if (this.place.path !== this.source.home) return [element("h3", {}, t("This folder is empty.")), upload];
    return [element("h3", {}, t("There are no files yet.")), element("p", {}, t("What is uploaded appears here.")), upload];
  }
}

function keyHints() {
  const hint = (keys, text) => element("span", {}, keys.map((key) => [element("kbd", {}, key), " "]), text);
  return element("p", { class: "muted files-keys" },
    hint(["/"], t("search")), hint(["↑", "↓"], t("move")), hint([t("Space")], t("select")),
    hint(["Shift", "↓"], t("select more")), hint([t("Enter")], t("open")), hint(["Delete"], t("delete")));
}

function sorted(entries, [key, direction]) {
  const collator = new Intl.Collator(undefined, { numeric: true });
  const value = { name: (one, other) => collator.compare(one.name, other.name), size: (one, other) => one.bytes - other.bytes, time: (one, other) => Date.parse(one.modified) - Date.parse(other.modified) }[key];
  const isFile = ({ kind }) => Number(kind === "file");
  // Folders have no size and no time: they stand first, by name.
  return [...entries].sort((one, other) =>
    isFile(one) - isFile(other) || (isFile(one) ? direction * value(one, other) : 0) || (key === "name" ? direction : 1) * collator.compare(one.name, other.name));
}
