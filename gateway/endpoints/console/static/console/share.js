// The page `share`: for the person who got a share link. Its folder, to look at and to fetch.

import { announce, element } from "../dom.js";
import { API, call } from "./api.js";
import { openDialog } from "./dialog.js";
import { bytes, moment } from "./format.js";
import { hasEnded, openGuestPage, showTrouble } from "./guest.js";
import { dayAndHour } from "./link-words.js";
import { notify } from "./shell.js";
import { rows } from "./table.js";
import { t } from "./texts.js";
import { shownName } from "./upload-words.js";

const PAGE = 100;
/** Pictures up to here are drawn small in the list. */
const MAX_SMALL_PICTURE = 4 << 20;
/** Milliseconds before its end in which a URL is asked for anew. */
const MARGIN = 30_000;
const PICTURES = new Set(["image/png", "image/jpeg", "image/gif", "image/webp", "image/avif"]);

openGuestPage("share", () => t("Shared files"), (main, link, told) => new SharePage(main, link, told).open());

class SharePage {
  #main;
  #link;
  #told;
  #path = pathOfAddress();
  #zip = null;
  #expires = 0;
  #head = element("header", { class: "guest-head" });
  #all;
  #list;

  constructor(main, link, told) {
    this.#main = main;
    this.#link = link;
    this.#told = told;
    this.#all = element("button", { type: "button", hidden: true, onclick: () => this.#fetchAll() }, t("Download all"));
    this.#list = rows({
      label: t("Shared files"),
      columns: [
        { title: t("Name"), kind: "head", cell: (entry) => this.#name(entry) },
        { title: t("Size"), kind: "number", cell: (entry) => (entry.kind === "file" ? bytes(entry.bytes) : "") },
        { title: t("Changed"), cell: (entry) => (entry.kind === "file" ? moment(entry.modified) : "") },
        { title: "", kind: "fit", cell: (entry) => this.#download(entry) },
      ],
      load: (cursor) => this.#load(cursor),
      empty: element("div", { class: "empty" }, element("h3", {}, t("Nothing is here yet")),
        element("p", {}, t("Look again later: what is put into the folder shows here."))),
    });
  }

  open() {
    addEventListener("popstate", () => this.#go(pathOfAddress(), false));
    this.#drawHead();
    this.#main.append(element("div", { class: "guest" }, this.#head, this.#list));
  }

  #drawHead() {
    const steps = this.#path.split("/").filter(Boolean);
    const step = (label, path, isHere) => (isHere
      ? element("span", { "aria-current": "page" }, element("bdi", {}, label))
      : element("button", { type: "button", class: "plain small", onclick: () => this.#go(path) }, element("bdi", {}, label)));
    const names = [shownName(this.#told.folder), ...steps.map(shownName)];
    const paths = names.map((_, at) => steps.slice(0, at).map((name) => `${name}/`).join(""));
    const until = this.#told.expires && element("span", {}, t("Until"), " ", dayAndHour(this.#told.expires));
    this.#head.replaceChildren(element("div", { class: "guest" },
      element("div", { class: "toolbar" }, element("h2", { tabindex: "-1" }, element("bdi", {}, names.at(-1))), this.#all),
      element("p", { class: "facts-of-link" }, until),
      steps.length > 0 && element("div", { class: "row", role: "group", "aria-label": t("Folders") },
        names.map((name, at) => step(name, paths[at], at === names.length - 1)))));
  }

  async #load(cursor) {
    try {
      const page = await this.#ask({ path: this.#path, cursor, limit: PAGE });
      this.#zip = page.zip;
      this.#expires = Date.parse(page.urls_expire);
      this.#all.hidden = page.entries.length === 0 && !cursor;
      return { rows: page.entries.map((entry) => ({ ...entry, cursor, path: entry.path ?? this.#path })), next: page.next };
    } catch (error) {
      if (hasEnded(error)) showTrouble(this.#main, error);
      throw error;
    }
  }

  #ask(query) {
    const url = new URL("shared", API);
    for (const [name, value] of Object.entries(query)) if (value !== undefined) url.searchParams.set(name, value);
    return call("GET", url, { headers: this.#link.headers });
  }

  #go(path, isNew = true) {
    this.#path = path;
    if (isNew) history.pushState(null, "", `${path ? `?path=${encodeURIComponent(path)}` : location.pathname}${location.hash}`);
    this.#drawHead();
    this.#list.reload();
    this.#head.querySelector("h2").focus();
  }

  #name(entry) {
    const name = shownName(entry.name);
    const label = element("bdi", {}, name);
    if (entry.kind === "folder") {
      return element("button", { type: "button", class: "entry", onclick: () => this.#go(entry.path) },
        sign("folder"), label, element("span", { class: "unseen" }, t("(folder)")));
    }
    if (!entry.url || !PICTURES.has(entry.mime)) {
      return element("span", { class: "entry" }, sign("file"), label);
    }
    const small = entry.bytes <= MAX_SMALL_PICTURE
      ? element("img", { class: "thumb", src: here(entry.url), alt: "", loading: "lazy", width: 40, height: 40 })
      : sign("picture");
    return element("button", { type: "button", class: "entry", "aria-label": t("Show {name}", { name }), onclick: () => this.#show(entry) }, small, label);
  }

  #download(entry) {
    if (!entry.url) return "";
    const label = t("Download {name}", { name: shownName(entry.name) });
    return element("button", { type: "button", class: "plain", "aria-label": label, onclick: () => this.#fetch(entry) }, t("Download"));
  }

  async #show(entry) {
    const name = shownName(entry.name);
    const url = await this.#fresh(entry);
    if (!url) return;
    const dialog = openDialog(name,
      element("img", { class: "shown", src: url, alt: t("Picture {name}", { name }) }),
      element("div", { class: "buttons" },
        element("button", { type: "button", onclick: () => this.#fetch(entry) }, t("Download")),
        element("button", { type: "button", class: "plain", autofocus: true, onclick: () => dialog.close() }, t("Close"))));
  }

  async #fetch(entry) {
    const url = await this.#fresh(entry);
    if (url && (await this.#isThere(url))) this.#save(url, entry.name);
  }

  async #fetchAll() {
    if (Date.now() > this.#expires - MARGIN) await this.#load(undefined).catch(() => null);
    const url = this.#zip && here(this.#zip);
    if (url && (await this.#isThere(url))) this.#save(url, `${this.#told.folder}.zip`);
  }

  /** Return a URL of a file that counts, asked for anew where it is about to end; null where the file is gone. */
  async #fresh(entry) {
    if (Date.now() < this.#expires - MARGIN) return here(entry.url);
    try {
      const page = await this.#ask({ path: entry.path, cursor: entry.cursor, limit: PAGE });
      const found = page.entries.find(({ name, kind }) => kind === "file" && name === entry.name);
      if (found?.url) return here(found.url);
      notify(t("This file is not there any more."), { kind: "bad" });
    } catch (error) {
      this.#fail(error);
    }
    return null;
  }

  /** Ask before the browser goes there: an answer that is no file would take the place of the page. */
  async #isThere(url) {
    try {
      await call("HEAD", new URL(url));
      return true;
    } catch (error) {
      if (error.status === 404) await this.#link.open().catch((ended) => this.#fail(ended));
      if (error.status !== 404 || document.contains(this.#head)) this.#fail(error);
      return false;
    }
  }

  #fail(error) {
    if (hasEnded(error)) showTrouble(this.#main, error);
    else notify(error.status === 404 ? t("This file is not there any more.") : t(error.message), { kind: "bad" });
  }

  #save(url, name) {
    announce(t("The download begins"));
    const link = element("a", { href: url, download: name });
    document.body.append(link);
    link.click();
    link.remove();
  }
}

/** Return a signed URL as it is reached from here: a proxy may have put the gateway elsewhere. */
function here(text) {
  const url = new URL(text);
  return new URL(url.pathname.split("/-/").slice(1).join("/-/") + url.search, API).href;
}

const SIGNS = {
  file: "M14 3H7a2 2 0 0 0-2 2v14a2 2 0 0 0 2 2h10a2 2 0 0 0 2-2V8ZM14 3v5h5",
  folder: "M3 7a2 2 0 0 1 2-2h4l2 2h8a2 2 0 0 1 2 2v8a2 2 0 0 1-2 2H5a2 2 0 0 1-2-2Z",
  picture: "M5 4h14a1 1 0 0 1 1 1v14a1 1 0 0 1-1 1H5a1 1 0 0 1-1-1V5a1 1 0 0 1 1-1ZM4 17l5-5 4 4 2-2 5 5M15.5 9h.01",
};

function sign(name) {
  const drawing = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  drawing.setAttribute("viewBox", "0 0 24 24");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
  line.setAttribute("d", SIGNS[name]);
  drawing.append(line);
  return element("span", { class: "thumb", "aria-hidden": "true" }, drawing);
}

function pathOfAddress() {
  return new URLSearchParams(location.search).get("path") ?? "";
}
