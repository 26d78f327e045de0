// The page `drop`: for the person who got a drop link. Files go in, and nothing of what is there is shown.

import { element } from "../dom.js";
import { bytes } from "./format.js";
import { askForPassword, hasEnded, openGuestPage, showTrouble } from "./guest.js";
import { dayAndHour } from "./link-words.js";
import { t, tn } from "./texts.js";
import { LeftBanner } from "./upload-banners.js";
import { Chooser } from "./upload-chooser.js";
import { refusalOf } from "./upload-limits.js";
import { UploadList } from "./upload-list.js";
import { encoded, urlOf } from "./upload-place.js";
import { Transfers } from "./upload-queue.js";
import { UnfinishedUploads } from "./upload-store.js";
import { Summary } from "./upload-summary.js";
import { shownName } from "./upload-words.js";

const REDRAW = 200;
const MAX_UPLOADS = 10_000;
/** Statuses with which a link says that it does not let files in (any more). */
const REFUSING = new Set([403, 404]);

openGuestPage("drop", () => t("Send files"), (main, link, told) => new DropPage(main, link, told).open());

class DropPage {
  #main;
  #link;
  #told;
  #store;
  #transfers;
  #parts;
  #facts = element("p", { class: "facts-of-link" });
  #thanks = element("section", { class: "thanks", hidden: true, role: "status" });
  #trouble = element("div", { hidden: true });
  #timer = 0;
  #drawnAt = 0;
  #isAsking = false;

  constructor(main, link, told) {
    this.#main = main;
    this.#link = link;
    this.#told = told;
    this.#store = new UnfinishedUploads(`link ${told.id}`);
    this.#transfers = new Transfers({
      urlOf,
      headers: () => link.headers,
      refusalOf: (file) => this.#refusalOf(file),
      onChange: (job) => this.#changed(job),
      store: this.#store,
      resumable: told.resumable,
    });
    this.#build();
  }

  #build() {
    const transfers = this.#transfers;
    const onAct = () => this.#draw();
    const place = new LinkPlace(this.#told.upload, this.#told.folder);
    const chooser = new Chooser(place, this.#told, (batches) => this.#take(place, batches));
    this.#parts = {
      left: new LeftBanner(transfers, {
        choose: (folder) => chooser.choose(folder), take: (entries) => this.#take(place, [entries]), onAct,
      }),
      chooser,
      summary: new Summary(transfers, onAct, () => chooser.add),
      list: new UploadList(transfers, { downloads: false, fallback: () => chooser.add }),
    };
    const { left, summary, list } = this.#parts;
    const head = element("header", { class: "guest-head" },
      element("h2", {}, t("Send files to {folder}", { folder: shownName(this.#told.folder) })), this.#facts);
    this.#main.append(element("div", { class: "guest upload-page" },
      head, this.#trouble, left.element, chooser.element, this.#thanks, summary.element, list.element));
  }

  async open() {
    addEventListener("beforeunload", (event) => { if (this.#transfers.busy) event.preventDefault(); });
    setInterval(() => { if (this.#transfers.busy) this.#draw(); }, 1000);
    this.#draw();
    await this.#transfers.restore(await this.#store.take());
  }

  async #take(place, batches) {
    const unreadable = [];
    for await (const batch of batches) {
      const room = MAX_UPLOADS - this.#transfers.jobs.size;
      const readable = batch.filter((item) => !item.fault);
      unreadable.push(...batch.filter((item) => item.fault).map((item) => shownName(item.relative)));
      this.#transfers.add(readable.slice(0, room).map((item) => ({ ...item, path: place.pathOf(item.relative) })));
      if (readable.length > room) return this.#parts.chooser.fault(t("The list is full: add the rest when these are stored."));
    }
    if (unreadable.length) {
      this.#parts.chooser.fault(tn(
        "{count} file or folder cannot be read: {names}", "{count} files or folders cannot be read: {names}",
        unreadable.length, { names: unreadable.slice(0, 3).join(", ") },
      ));
    }
  }

  #refusalOf(file) {
    const { left } = this.#told;
    if (left.bytes !== null && file.size > left.bytes) {
      return t("It has {size}, and {left} may still be sent with this link.", { size: bytes(file.size), left: bytes(left.bytes) });
    }
    return refusalOf(file, this.#told);
  }

  #changed(job) {
    if (job?.state === "stored" && !job.isNoted) {
      job.isNoted = true;
      this.#parts.list.noteStored(job);
      this.#noteLeft(job.result);
    }
    if (job?.state === "failed" && REFUSING.has(job.status)) this.#ask();
    this.#soon();
  }

  /** The answer to an upload tells what is left of the link. */
  #noteLeft(result) {
    const quota = result?.quotas?.find(({ quota: key }) => key === `link ${this.#told.id}`);
    const { left } = this.#told;
    for (const what of ["files", "bytes"]) {
      if (left[what] !== null && quota?.[what]) left[what] = Math.min(left[what], quota[what].left);
    }
  }

  /** Something was refused: ask whether the link has ended, or needs its password again. */
  async #ask() {
    if (this.#isAsking) return;
    this.#isAsking = true;
    const again = () => { this.#trouble.hidden = true; this.#isAsking = false; this.#transfers.retryAll(); };
    try {
      const told = await this.#link.open();
      this.#told.left = told.left ?? this.#told.left;
      if (!told.needs_password) return void (this.#isAsking = false);
      this.#trouble.hidden = false;
      askForPassword(this.#trouble, this.#link, again);
    } catch (error) {
      this.#trouble.hidden = false;
      showTrouble(this.#trouble, error, again);
      this.#parts.chooser.element.hidden = hasEnded(error);
    }
  }

  #soon() {
    if (this.#timer) return;
    this.#timer = setTimeout(() => this.#draw(), Math.max(0, this.#drawnAt + REDRAW - performance.now()));
  }

  #draw() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.#drawnAt = performance.now();
    const { left, chooser, summary, list } = this.#parts;
    left.draw(this.#transfers);
    chooser.draw(this.#transfers.jobs.size > 0);
    this.#drawFacts();
    this.#drawThanks();
    list.draw();
    summary.draw();
  }

  get #isFull() {
    const { left } = this.#told;
    return left.files === 0 || left.bytes === 0;
  }

  #drawFacts() {
    const { left, expires } = this.#told;
    const isFull = this.#isFull;
    const lines = isFull ? [t("This link is full: nothing more can be sent.")] : [
      expires ? [t("Until"), " ", dayAndHour(expires)] : null,
      left.files !== null && left.files > 0 && tn("{count} more file may be sent", "{count} more files may be sent", left.files),
      left.bytes !== null && left.bytes > 0 && t("{size} left", { size: bytes(left.bytes) }),
    ].filter(Boolean);
    const text = JSON.stringify([left, Math.floor(Date.now() / 60_000)]);
    if (this.#facts.dataset.drawn === text) return;
    this.#facts.dataset.drawn = text;
    this.#facts.replaceChildren(...lines.map((line) => element("span", {}, line)));
    if (isFull && !this.#transfers.busy) this.#parts.chooser.element.hidden = true;
  }

  #drawThanks() {
    const { counts, busy } = this.#transfers;
    const isDone = counts.stored > 0 && !busy && !counts.failed && !counts.paused && !counts.missing;
    if (this.#thanks.hidden === !isDone) return;
    this.#thanks.hidden = !isDone;
    this.#thanks.replaceChildren(...(isDone ? [
      element("h3", {}, t("Thank you")),
      element("p", {}, this.#isFull ? t("Everything has arrived. You can close this page.")
        : t("Everything has arrived. You can close this page, or send more.")),
    ] : []));
  }
}

/** Where the files of a link go: one folder, and the folders that are sent. */
class LinkPlace {
  keepsFolders = true;
  fields = [];
  #folder;

  constructor(folder, name) {
    this.#folder = folder;
    this.shown = shownName(name);
  }

  check() {
    return true;
  }

  pathOf(relative) {
    const names = relative.split("/").filter(Boolean);
    return this.#folder + names.map(encoded).join("/");
  }
}
