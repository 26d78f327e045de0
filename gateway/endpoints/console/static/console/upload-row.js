// One upload, as it is shown: its name, how far it is, and what can be done about it.

import { element } from "../dom.js";
import { aftermath, storedLine } from "./upload-after.js";
import { icon } from "./upload-icons.js";
import { shownName, stateOf } from "./upload-words.js";
import { t } from "./texts.js";

const ICONS = { failed: "failed", stored: "done", paused: "pause", missing: "clock", waiting: "clock" };
const MOVING = new Set(["waiting", "sending", "interrupted"]);
const HAS_BAR = new Set(["sending", "interrupted", "paused", "missing"]);

export class Row {
  #job;
  #transfers;
  #downloads;
  #drawn = {};
  #parts;
  item;

  constructor(job, transfers, { downloads, onAct }) {
    this.#job = job;
    this.#transfers = transfers;
    this.#downloads = downloads;
    const name = shownName(job.relative);
    const act = (verb) => () => { transfers[verb](job); onAct(); };
    this.#parts = {
      sign: element("span", { class: "sign" }),
      state: element("p", { class: "upload-state" }),
      bar: element("progress", { max: 1, value: 0, "aria-label": t("Progress of {name}", { name }) }),
      after: element("div", { class: "after" }),
      pause: button("pause", t("Pause {name}", { name }), act("pause")),
      resume: button("resume", t("Go on with {name}", { name }), act("resume")),
      retry: button("retry", t("Try {name} again", { name }), act("retry")),
      cancel: button("cancel", t("Cancel {name}", { name }), act("cancel")),
      dismiss: button("cancel", t("Take {name} out of the list", { name }), act("cancel")),
    };
    const { sign, state, bar, after, pause, resume, retry, cancel, dismiss } = this.#parts;
    const body = element("div", { class: "upload-body" },
      element("p", { class: "upload-name", title: name }, element("bdi", {}, name)), state, bar, after);
    const deeds = element("div", { class: "deeds" }, pause, resume, retry, cancel, dismiss);
    this.item = element("li", { class: "upload" }, sign, body, deeds);
    this.draw();
  }

  draw() {
    const job = this.#job;
    const { sign, state, bar, pause, resume, retry, cancel, dismiss } = this.#parts;
    if (this.#drawn.state !== job.state) {
      this.#drawn = { state: job.state };
      this.item.dataset.state = job.state;
      sign.replaceChildren(icon(ICONS[job.state] ?? "file"));
      const isOver = job.state === "failed" || job.state === "stored";
      bar.hidden = !HAS_BAR.has(job.state);
      pause.hidden = !MOVING.has(job.state);
      resume.hidden = job.state !== "paused";
      retry.hidden = job.state !== "failed" || job.final;
      cancel.hidden = isOver;
      dismiss.hidden = !isOver;
    }
    bar.value = job.size ? job.sent / job.size : 0;
    if (job.state === "stored") return this.#drawStored();
    const text = stateOf(job, this.#transfers);
    if (this.#drawn.text !== text) state.textContent = this.#drawn.text = text;
  }

  #drawStored() {
    const { state, after } = this.#parts;
    if (this.#drawn.status === this.#job.status && this.#drawn.text === "stored") return;
    this.#drawn = { ...this.#drawn, status: this.#job.status, text: "stored" };
    const status = this.#job.aftermath ?? null;
    state.replaceChildren(...storedLine(this.#job, status, this.#downloads));
    after.replaceChildren(...(status ? aftermath(status) : []));
  }

  /** What is told of the stored file has changed. */
  told() {
    this.#drawn.text = "";
    this.draw();
  }
}

function button(name, label, onclick) {
  const attributes = { type: "button", class: "quiet deed", "aria-label": label, title: label, onclick };
  return element("button", attributes, icon(name));
}
