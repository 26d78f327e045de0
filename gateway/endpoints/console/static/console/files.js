// The page of files: folders with their addresses, a search below them, and what can be done with what they have.

import { announce, element } from "../dom.js";
import { API } from "./api.js";
import { placeOf, sameList, urlOf } from "./files-address.js";
import { FileList } from "./files-list.js";
import { folderLinks } from "./files-links.js";
import { crumbs, quotedName } from "./files-names.js";
import { FilePanel } from "./files-panel.js";
import { removeFiles } from "./files-remove.js";
import { selectionBar } from "./files-selection.js";
import { chooseSource } from "./files-source.js";
import { openPage } from "./shell.js";
import { t } from "./texts.js";

openPage(() => t("Files"), (main, session) => {
  const source = chooseSource(session);
  if (!source) main.append(switchedOff(session));
  else new FilesPage(main, session, source).begin();
});

class FilesPage {
  constructor(main, session, source) {
    Object.assign(this, { session, source });
    this.place = null;
    this.crumbs = element("ol", { class: "files-crumbs" });
    this.title = element("h2", { class: "files-title", tabindex: "-1" });
    this.tools = element("div", { class: "row files-tools" });
    this.input = element("input", { type: "search", name: "search", maxlength: 255, autocomplete: "off", placeholder: t("Search here and below"), "aria-label": t("Search here and below") });
    this.outcome = element("div", { class: "files-outcome" });
    this.list = new FileList(source, {
      href: (entry) => this.href(entry),
      open: (entry) => this.go(this.target(entry)),
      selection: (entries) => this.bar.show(entries),
      remove: () => this.remove(this.list.rows.chosen()),
    });
    this.bar = selectionBar(source, {
      folder: () => this.list.folder,
      remove: () => this.remove(this.list.rows.chosen()),
      clear: () => { this.list.rows.selectAll(false); this.list.rows.focus(this.list.rows.active); },
    });
    this.panel = new FilePanel(source, session.authorization, {
      close: () => this.closed(),
      beside: (entry, by) => this.beside(entry, by),
      step: (entry, by) => this.step(entry, by),
      remove: (entry) => this.removeShown(entry),
    });
    const form = element("form", { role: "search", class: "row files-search", onsubmit: (event) => this.search(event) },
      this.input, element("button", { type: "submit", class: "plain" }, t("Search")));
    main.append(element("div", { class: "files" },
      element("nav", { "aria-label": t("Folders above") }, this.crumbs),
      element("div", { class: "files-head" }, this.title, this.tools),
      form, this.outcome, this.list.element, this.bar.element));
  }

  begin() {
    addEventListener("popstate", () => this.follow());
    // "/" goes to the search, as on many pages.
    addEventListener("keydown", (event) => {
      if (event.key !== "/" || event.ctrlKey || event.metaKey || event.target.closest("input, dialog")) return;
      event.preventDefault();
      this.input.focus();
    });
    this.input.addEventListener("search", () => { if (!this.input.value && this.place.search) this.go({ path: this.place.path }); });
    return this.follow();
  }

  // -- addresses

  target(entry) {
    if (entry.kind === "folder") return { path: entry.place };
    return { ...this.place, file: entry.name };
  }

  href(entry) {
    return urlOf(this.target(entry));
  }

  go(place) {
    history.pushState(null, "", urlOf(place));
    return this.follow();
  }

  /** Show what the address of the page says. */
  async follow() {
    const place = placeOf(location, this.source.home);
    const before = this.place;
    this.place = place;
    if (before && sameList(before, place)) return this.showFile();
    this.panel.close({ quiet: true });
    this.input.value = place.search;
    this.outcome.replaceChildren();
    this.list.folder = null;
    this.head(place);
    const inside = before !== null && (document.activeElement === document.body || this.list.element.contains(document.activeElement));
    await this.list.load(place);
    if (this.place !== place) return undefined;
    this.head(place);
    if (inside) this.focusAfter(before);
    return this.showFile();
  }

  /** The focus goes to the folder that was left, else to the first row, else to the name of the folder. */
  focusAfter(before) {
    const { rows } = this.list;
    if (before.path.startsWith(this.place.path) && rows.focusPath(`${this.place.path}${before.path.slice(this.place.path.length).split("/")[0]}/`)) return;
    if (rows.entries.length) rows.focus(0);
    else this.title.focus();
  }

  head(place) {
    const parts = crumbs(place.path, this.source.home, t("Files"));
    const link = ([name, path]) => element("a", { href: urlOf({ path }), onclick: (event) => this.follows(event, path) }, element("bdi", {}, name));
    this.crumbs.replaceChildren(...parts.slice(0, -1).map((part) => element("li", {}, link(part))));
    this.title.replaceChildren(element("bdi", {}, place.search ? t("Search in {folder}", { folder: quotedName(parts.at(-1)[0]) }) : parts.at(-1)[0]));
    document.title = `${parts.at(-1)[0]} · Upload Gateway`;
    const hadFocus = this.tools.contains(document.activeElement);
    const refresh = element("button", { type: "button", class: "plain", onclick: () => this.refresh() }, t("Refresh"));
    const zip = !place.search && this.list.folder && this.list.rows.entries.length ? this.source.zipUrl(this.list.folder) : null;
    this.tools.replaceChildren(...[
      zip && element("a", { class: "button plain", href: zip, download: true }, t("Download as zip")),
      ...(this.list.folder || place.path === this.source.home ? folderLinks(this.session, this.list.folder?.path ?? place.path) : []),
      refresh,
    ].filter(Boolean));
    if (hadFocus) refresh.focus();
  }

  follows(event, path) {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    this.go({ path });
  }

  search(event) {
    event.preventDefault();
    const search = this.input.value;
    if (search !== this.place.search) this.go({ path: this.place.path, search });
  }

  async refresh() {
    this.outcome.replaceChildren();
    await this.list.load(this.place, { keep: true });
    this.head(this.place);
    announce(t("Refreshed"));
  }

  // -- one file

  async showFile() {
    const { file } = this.place;
    if (!file) return this.panel.close({ quiet: true });
    const entry = this.list.rows.entries.find(({ name, kind }) => kind === "file" && name === file);
    if (entry) return this.panel.open(entry);
    // It may stand on a later page of the list.
    try {
      const told = await this.source.find(this.place.path, file);
      if (this.place.file === file) await this.panel.open(told);
    } catch {
      this.outcome.replaceChildren(element("p", { role: "alert" }, t("{name} is not in this list.", { name: quotedName(file) })));
    }
    return undefined;
  }

  closed() {
    const file = this.panel.entry;
    if (this.place.file) {
      const { file: _, ...place } = this.place;
      this.place = place;
      history.pushState(null, "", urlOf(place));
    }
    if (!this.list.rows.focusPath(file.path)) this.list.rows.focus(this.list.rows.active);
  }

  /** Return the file before or behind another one, undefined at the end and for one that is not shown. */
  beside(entry, by) {
    const files = this.list.rows.entries.filter(({ kind }) => kind === "file");
    const index = files.findIndex(({ path }) => path === entry.path);
    return index < 0 ? undefined : files[index + by];
  }

  step(entry, by) {
    const next = this.beside(entry, by);
    if (!next) return;
    this.place = { ...this.place, file: next.name };
    history.replaceState(null, "", urlOf(this.place));
    this.panel.open(next);
  }

  // -- removals

  async removeShown(entry) {
    this.panel.close();
    await this.remove([entry]);
  }

  async remove(entries) {
    const { rows } = this.list;
    const index = rows.active;
    const gone = await removeFiles(this.source, entries, this.outcome);
    if (gone?.length) this.list.drop(new Set(gone));
    if (rows.entries.length) rows.focus(index);
    else this.title.focus();
  }
}

function switchedOff(session) {
  const nobody = session.role === "operator";
  const flag = (text) => element("code", {}, text);
  return element("section", { class: "notice" },
    element("h2", {}, t("Files are not listed here")),
    element("p", {}, session.uploads.folder || !session.features.listing
      ? t("The gateway shows folders with the setting:")
      : t("The upload path of this gateway has no folders: its variables precede the name of the file.")),
    element("pre", {}, "gateway --listing --downloads"),
    nobody ? element("p", {}, t("Everyone who can reach the gateway may list the files then. With a token operators see them without this setting:"), " ", flag("--auth token")) : null,
    element("p", {}, element("a", { href: new URL("..", API) }, t("Upload files"))));
}
