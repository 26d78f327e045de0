// All uploads in one look: how far, how fast, how long still, and what can be done with all of them.

import { announce, element } from "../dom.js";
import { confirm } from "./dialog.js";
import { bytes, duration, speed } from "./format.js";
import { setText } from "./live.js";
import { percent, percentOf } from "./upload-words.js";
import { number, t, tn } from "./texts.js";

const SPEAKS_EVERY = 15_000;

export class Summary {
  #transfers;
  #title = document.title;
  #heading = element("h2", {}, "");
  #facts = element("p", { class: "facts-line" });
  #bar = element("progress", { max: 1, value: 0, class: "whole", "aria-label": t("Progress of all uploads") });
  #buttons;
  #fallback;
  #spoke = 0;
  #wasBusy = false;
  #failed = 0;
  element;

  /** `fallback` returns what gets the focus where no button is left. */
  constructor(transfers, onAct, fallback = () => null) {
    this.#transfers = transfers;
    this.#fallback = fallback;
    const act = (verb) => () => { transfers[verb](); onAct(); };
    const make = (label, onclick) => element("button", { type: "button", class: "plain", onclick }, label);
    this.#buttons = {
      pauseAll: make(t("Pause all"), act("pauseAll")),
      resumeAll: make(t("Go on with all"), act("resumeAll")),
      retryAll: make(t("Try all again"), act("retryAll")),
      cancelAll: make(t("Cancel all"), () => this.#cancelAll(onAct)),
      clear: make(t("Clear the list"), act("clear")),
    };
    this.element = element("section", { class: "summary", hidden: true },
      element("div", { class: "summary-head" },
        element("div", {}, this.#heading, this.#facts),
        element("div", { class: "row" }, Object.values(this.#buttons))),
      this.#bar);
  }

  draw() {
    const { counts, bytes: sums, jobs, busy } = this.#transfers;
    this.element.hidden = jobs.size === counts.missing;
    const open = counts.waiting + counts.sending + counts.interrupted + counts.paused;
    setText(this.#heading, this.#headline(open));
    setText(this.#facts, this.#line(open));
    this.#bar.hidden = open === 0;
    this.#bar.value = sums.total ? sums.sent / sums.total : 1;
    this.element.dataset.state = busy ? "busy" : counts.failed ? "failed" : open ? "paused" : "done";
    const focused = document.activeElement;
    this.#buttons.pauseAll.hidden = !busy;
    this.#buttons.resumeAll.hidden = counts.paused === 0;
    this.#buttons.retryAll.hidden = counts.failed < 2 || !hasTwo(jobs, (job) => job.state === "failed" && !job.final);
    this.#buttons.cancelAll.hidden = open < 2;
    this.#buttons.clear.hidden = counts.stored === 0 || open > 0;
    if (focused.hidden) (Object.values(this.#buttons).find((button) => !button.hidden) ?? this.#fallback())?.focus();
    const far = percentOf(sums.sent, sums.total, open === 0);
    const title = busy ? `${percent(far)} · ${t("Upload")}` : this.#title;
    if (document.title !== title) document.title = title;
    this.#speak(busy, far);
  }

  #headline(open) {
    const { counts, away, signedOut } = this.#transfers;
    const all = counts.stored + open;
    const some = { done: number(counts.stored) };
    if (open === 0 && counts.failed) return notStored(counts.failed);
    if (open === 0) return tn("{count} file is stored", "All {count} files are stored", counts.stored);
    if (!this.#transfers.busy) return t("Paused");
    if (away || signedOut) return t("Interrupted");
    return tn("{done} of {count} file stored", "{done} of {count} files stored", all, some);
  }

  #line(open) {
    const { bytes: sums, speed: rate, counts, away } = this.#transfers;
    const isMixed = counts.stored > 0 && counts.failed > 0;
    if (!open) return isMixed ? tn("{count} file is stored", "{count} files are stored", counts.stored) : "";
    const left = rate.secondsFor(sums.total - sums.sent);
    return [
      t("{sent} of {total}", { sent: bytes(sums.sent), total: bytes(sums.total) }),
      !away && rate.value() > 0 && speed(rate.value()),
      !away && left !== null && left > 1 && t("{time} left", { time: duration(left) }),
      counts.failed > 0 && tn("{count} not stored", "{count} not stored", counts.failed),
    ].filter(Boolean).join(" · ");
  }

  /** Say seldom and shortly what happens: the beginning, what failed first, how far now and then, the end. */
  #speak(busy, far) {
    const { counts } = this.#transfers;
    const now = performance.now();
    if (counts.failed > this.#failed && this.#failed === 0) {
      announce(notStored(counts.failed));
      this.#spoke = now;
    } else if (this.#wasBusy && !busy && !counts.paused && counts.stored + counts.failed > 0) {
      announce(this.#headline(0));
      this.#spoke = now;
    } else if (busy && (!this.#wasBusy || now - this.#spoke > SPEAKS_EVERY)) {
      const begins = this.#headline(counts.waiting + counts.sending + counts.interrupted);
      announce(this.#wasBusy ? t("{percent} sent", { percent: percent(far) }) : begins);
      this.#spoke = now;
    }
    this.#failed = counts.failed;
    this.#wasBusy = busy;
  }

  async #cancelAll(onAct) {
    const { counts } = this.#transfers;
    const open = counts.waiting + counts.sending + counts.interrupted + counts.paused;
    const text = t("What has come of them is removed. Files that are stored stay.");
    const title = tn("Cancel {count} upload?", "Cancel {count} uploads?", open);
    if (!(await confirm({ title, text, action: t("Cancel the uploads"), danger: true }))) return;
    this.#transfers.cancelAll();
    onAct();
  }
}

function hasTwo(jobs, matches) {
  let count = 0;
  for (const job of jobs) if (matches(job) && ++count === 2) return true;
  return false;
}

function notStored(count) {
  return tn("{count} file was not stored", "{count} files were not stored", count);
}
