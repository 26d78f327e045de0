// The list of uploads: what failed, what moves, what waits, what is stored. Of thousands a few dozen are in the page.

import { element } from "../dom.js";
import { Row } from "./upload-row.js";
import { t, tn } from "./texts.js";

const SHOWN = 20;
const WAITING_SHOWN = 3;
const MORE = 50;

export class UploadList {
  #transfers;
  #how;
  #rows = new Map();
  #stored = [];
  #sections;
  element;

  /** `how` has `downloads`, and `fallback`: what gets the focus where nothing of the list is left. */
  constructor(transfers, how) {
    this.#transfers = transfers;
    this.#how = { ...how, onAct: () => this.draw() };
    this.#sections = {
      failed: new Section(() => t("Not stored"), () => this.draw()),
      moving: new Section(() => t("On the way"), () => this.draw()),
      missing: new Section(() => t("Left from an earlier visit"), () => this.draw()),
      stored: new Section(() => t("Stored"), () => this.draw()),
    };
    const sections = Object.values(this.#sections).map((section) => section.element);
    this.element = element("div", { class: "upload-list" }, sections);
  }

  /** Note a job that is stored: the newest are shown first. */
  noteStored(job) {
    this.#stored.push(job);
  }

  /** What is told of a stored file has changed. */
  told(job) {
    this.#rows.get(job)?.told();
  }

  draw() {
    const focused = this.element.contains(document.activeElement) ? document.activeElement : null;
    const next = focused?.closest(".upload")?.nextElementSibling;
    const kept = new Set();
    for (const [name, jobs, count] of this.#wanted()) {
      const rows = jobs.map((job) => this.#rowOf(job));
      for (const job of jobs) kept.add(job);
      this.#sections[name].show(rows.map((row) => row.item), count);
    }
    for (const [job, row] of this.#rows) {
      if (kept.has(job)) continue;
      row.item.remove();
      this.#rows.delete(job);
    }
    if (focused && isGone(focused)) this.#refocus(focused, next);
  }

  #rowOf(job) {
    let row = this.#rows.get(job);
    if (row) row.draw();
    else this.#rows.set(job, (row = new Row(job, this.#transfers, this.#how)));
    return row;
  }

  /** Return for each section its jobs that are shown, and how many there are. */
  #wanted() {
    const { counts, jobs } = this.#transfers;
    const limit = (name) => this.#sections[name].limit;
    const failed = [], moving = [], waiting = [], missing = [];
    const lists = { failed, sending: moving, interrupted: moving, paused: moving, waiting, missing };
    const most = {
      failed: limit("failed"), sending: limit("moving"), interrupted: limit("moving"), paused: limit("moving"),
      waiting: Math.max(WAITING_SHOWN, limit("moving") - SHOWN), missing: limit("missing"),
    };
    for (const job of jobs) {
      const list = lists[job.state];
      if (list && list.length < most[job.state]) list.push(job);
    }
    const active = counts.sending + counts.interrupted + counts.paused + counts.waiting;
    return [
      ["failed", failed, counts.failed],
      ["moving", [...moving, ...waiting], active],
      ["missing", missing, counts.missing],
      ["stored", this.#latestStored(limit("stored")), counts.stored],
    ];
  }

  #latestStored(limit) {
    const latest = [];
    for (let place = this.#stored.length - 1; place >= 0 && latest.length < limit; place -= 1) {
      const job = this.#stored[place];
      if (job.state === "stored") latest.push(job);
      else this.#stored.splice(place, 1);
    }
    return latest;
  }

  /** An action has removed what had the focus: it goes to what took its place, to the next upload, or out. */
  #refocus(focused, next) {
    const usable = (within) => within?.isConnected && within.querySelector(".deed:not([hidden])");
    const target = usable(focused.closest(".upload")) || usable(next) || usable(this.element) || this.#how.fallback();
    target?.focus();
  }
}

function isGone(focused) {
  return document.activeElement !== focused || focused.closest("[hidden]") !== null;
}

class Section {
  limit = SHOWN;
  #list = element("ul", { class: "uploads" });
  #count = element("span", { class: "count" });
  #rest = element("p", { class: "muted" });
  #foot = element("div", { class: "rest" });
  #more;
  element;

  constructor(title, onMore) {
    const show = () => { this.limit += MORE; onMore(); };
    this.#more = element("button", { type: "button", class: "plain", onclick: show }, t("Show more"));
    this.element = element("section", { class: "upload-section", hidden: true },
      element("h3", {}, title(), " ", this.#count), this.#list,
      this.#foot);
    this.#foot.append(this.#rest, this.#more);
  }

  show(items, count) {
    this.element.hidden = count === 0;
    this.#count.textContent = String(count);
    const rest = count - items.length;
    this.#rest.textContent = rest > 0 ? tn("and {count} more", "and {count} more", rest) : "";
    this.#foot.hidden = rest <= 0;
    items.forEach((item, place) => {
      if (this.#list.children[place] !== item) this.#list.insertBefore(item, this.#list.children[place] ?? null);
    });
    while (this.#list.children.length > items.length) this.#list.lastElementChild.remove();
  }
}
