// Draws uploads: a row for each, with what can be done about it.

import { element, megabytes } from "./drawing.js";

const BLANK = "blank.svg";

export class Queue {
  #rows = new Map();
  #deeds;
  #list = document.getElementById("jobs");
  #section = document.getElementById("uploads");
  #summary = document.getElementById("summary");
  #clear = document.getElementById("clear");
  #again = document.getElementById("retry-all");

  /** `deeds` has `cancel(job)`, `retry(job)` and `retryAll(jobs)`. */
  constructor(deeds) {
    this.#deeds = deeds;
    this.#again.addEventListener("click", () => deeds.retryAll(this.jobs));
    this.#clear.addEventListener("click", () => this.#dropFinished());
  }

  draw(job) {
    if (!this.#rows.has(job)) this.#add(job);
    const row = this.#rows.get(job);
    row.item.className = `job ${job.state === "failed" ? "failed" : job.state === "ready" ? "done" : ""}`;
    row.state.textContent = WORDS[job.state](job);
    row.state.setAttribute("role", job.state === "failed" ? "alert" : "none");
    row.bar.hidden = !["waiting", "sending", "interrupted", "looking"].includes(job.state);
    if (job.state === "looking") row.bar.removeAttribute("value");
    else row.bar.value = job.file.size ? job.sent / job.file.size : 0;
    row.cancel.hidden = !["waiting", "sending", "interrupted"].includes(job.state);
    row.retry.hidden = !(job.state === "cancelled" || (job.state === "failed" && !job.final));
    row.dismiss.hidden = !["failed", "cancelled"].includes(job.state);
    if (job.state === "ready") this.#drop(job);
    this.#sum();
  }

  get jobs() {
    return [...this.#rows.keys()];
  }

  #add(job) {
    const preview = element("img", { className: "preview", alt: "", src: BLANK });
    if (!job.final) preview.src = URL.createObjectURL(job.file);
    preview.addEventListener("error", () => Object.assign(preview, { src: BLANK }), { once: true });
    const name = element("p", { className: "name", textContent: job.file.name, title: job.file.name });
    const state = element("p", { className: "state" });
    const bar = element("progress", { max: 1, value: 0 });
    bar.setAttribute("aria-label", `Progress of ${job.file.name}`);
    const cancel = this.#button("Cancel", job, () => this.#deeds.cancel(job));
    const retry = this.#button("Retry", job, () => this.#deeds.retry(job));
    const dismiss = this.#button("Dismiss", job, () => this.#drop(job));
    const deeds = element("div", { className: "deeds" }, cancel, retry, dismiss);
    const item = element("li", {}, preview, element("div", {}, name, state, bar), deeds);
    this.#rows.set(job, { item, preview, state, bar, cancel, retry, dismiss });
    this.#list.append(item);
  }

  #button(text, job, act) {
    const button = element("button", { type: "button", className: "quiet", textContent: text });
    button.setAttribute("aria-label", `${text} ${job.file.name}`);
    button.addEventListener("click", act);
    return button;
  }

  #drop(job) {
    const row = this.#rows.get(job);
    const next = row.item.nextElementSibling ?? row.item.previousElementSibling;
    const had = row.item.contains(document.activeElement);
    if (row.preview.src.startsWith("blob:")) URL.revokeObjectURL(row.preview.src);
    row.item.remove();
    this.#rows.delete(job);
    if (had) (next?.querySelector("button:not([hidden])") ?? document.getElementById("files")).focus();
    this.#sum();
  }

  #dropFinished() {
    for (const job of this.jobs) if (["failed", "cancelled"].includes(job.state)) this.#drop(job);
  }

  #sum() {
    const count = (...states) => this.jobs.filter((job) => states.includes(job.state)).length;
    const moving = count("waiting", "sending", "interrupted", "looking");
    const over = count("failed", "cancelled");
    this.#section.hidden = this.#rows.size === 0;
    this.#clear.hidden = over < 2;
    const mayRetry = this.jobs.filter((job) => job.state === "failed" && !job.final);
    if (mayRetry.length < 2 && this.#again === document.activeElement) document.getElementById("files").focus();
    this.#again.hidden = mayRetry.length < 2;
    const texts = [moving && `${moving} on the way`, over && `${over} not stored`];
    this.#summary.textContent = texts.filter(Boolean).join(", ");
  }
}

function percent(job) {
  return `${Math.floor((100 * job.sent) / (job.file.size || 1))}%`;
}

const WORDS = {
  waiting: (job) => `Waiting, ${megabytes(job.file.size)}`,
  sending: (job) => `${percent(job)} of ${megabytes(job.file.size)}`,
  interrupted: (job) => `Interrupted at ${percent(job)}. It goes on by itself when the gateway answers …`,
  looking: () => "Stored. Making the thumbnail …",
  ready: () => "Ready",
  failed: (job) => job.error,
  cancelled: () => "Cancelled",
};
