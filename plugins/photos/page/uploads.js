// Uploads, a few at a time. A job goes: waiting, sending, looking (the gateway makes its copies), then
// ready; or failed, which can be tried again; or cancelled. While the gateway is away a job that is being
// sent is interrupted, and goes on by itself. The page listens for changes and draws them.

import { forget, sendRest, sendWhole } from "./resumable.js";

const PARALLEL = 3;
/** Statuses after which the same request may succeed later; 0: no answer. */
const TRY_LATER = new Set([0, 408, 423, 429, 500, 502, 503, 504]);
const FIRST_PAUSE = 1000;
const LONGEST_PAUSE = 30_000;
const MAX_PERMISSIONS = 3;
const PATIENCE = 10 * 60 * 1000;

export class Uploads {
  #api;
  #changed;
  #waiting = [];
  #sending = 0;
  #looking = new Map();
  #pause = 400;
  #timer = 0;

  /** `changed(job)` is called at each step of a job. */
  constructor(api, changed) {
    this.#api = api;
    this.#changed = changed;
  }

  add(file, type, words) {
    const job = { file, type, words, state: "waiting", sent: 0, error: "", stop: null, began: 0 };
    this.#enter(job);
    return job;
  }

  /** Refuses a file before a byte of it is sent. */
  refuse(file, error) {
    const job = { file, state: "failed", error, final: true, sent: 0 };
    this.#changed(job);
    return job;
  }

  retry(job) {
    Object.assign(job, { state: "waiting", sent: 0, error: "", status: 0 });
    this.#enter(job);
  }

  /** Tries every job again that failed and may succeed. */
  retryAll(jobs) {
    for (const job of jobs) if (job.state === "failed" && !job.final) this.retry(job);
  }

  cancel(job) {
    job.stop?.abort();
    forget(job);
    job.begun = null;
    this.#waiting = this.#waiting.filter((one) => one !== job);
    this.#looking.delete(job.photoId);
    this.#move(job, "cancelled");
  }

  #enter(job) {
    job.stop = new AbortController();
    this.#waiting.push(job);
    this.#changed(job);
    this.#next();
  }

  #next() {
    while (this.#sending < PARALLEL && this.#waiting.length) {
      this.#sending += 1;
      const job = this.#waiting.shift();
      this.#send(job).catch((fault) => this.#failed(job, fault)).finally(() => {
        this.#sending -= 1;
        this.#next();
      });
    }
  }

  async #send(job) {
    this.#move(job, "sending");
    await this.#untilSent(job);
    if (job.state !== "sending") return;
    job.photoId = job.begun.photoId;
    job.began = Date.now();
    this.#looking.set(job.photoId, job);
    this.#move(job, "looking");
    this.#pause = 400;
    this.#lookLater();
  }

  /** Sends a job, however often the connection breaks or the gateway is away. */
  async #untilSent(job) {
    for (let pause = FIRST_PAUSE, permissions = 0; ; ) {
      const sent = job.sent;
      try {
        permissions += job.begun ? 0 : 1;
        await this.#attempt(job);
        return;
      } catch (fault) {
        if (fault.expired && permissions < MAX_PERMISSIONS) {
          job.begun = null;
          continue;
        }
        if (!TRY_LATER.has(fault.status) || job.stop.signal.aborted) throw fault;
        if (job.sent > sent) pause = FIRST_PAUSE;
        this.#move(job, "interrupted");
        await patience(Math.max(fault.retryAfter * 1000, pause), job.stop.signal);
        pause = Math.min(pause * 2, LONGEST_PAUSE);
        this.#move(job, "sending");
      }
    }
  }

  async #attempt(job) {
    const progressed = () => this.#changed(job);
    if (!job.begun) {
      const facts = { ...job.words, contentType: job.type, bytes: job.file.size };
      job.begun = await this.#api.initiate(facts, job.stop.signal);
      job.address = null;
    }
    if (this.#api.isOwn(job.begun.s3PutObjectUrl)) {
      await sendRest(job, job.begun, (url) => this.#api.reachable(url), progressed);
    } else {
      await sendWhole(job, job.begun, progressed);
    }
  }

  #failed(job, fault) {
    if (job.state === "cancelled" || fault.name === "AbortError") return;
    job.error = fault.message;
    job.status = fault.status;
    this.#move(job, "failed");
  }

  #move(job, state) {
    job.state = state;
    this.#changed(job);
  }

  // -- asking whether the gateway is done, less and less often

  #lookLater() {
    clearTimeout(this.#timer);
    if (this.#looking.size) this.#timer = setTimeout(() => this.#look(), this.#pause);
  }

  async #look() {
    this.#pause = Math.min(this.#pause * 1.6, 5000);
    try {
      const ids = [...this.#looking.keys()].slice(0, 100).join(",");
      const { photos } = await this.#api.list({ ids });
      for (const photo of photos) this.#seen(this.#looking.get(photo.id), photo);
    } catch (fault) {
      this.#pause = 5000;
    }
    for (const job of this.#looking.values()) {
      if (Date.now() - job.began > PATIENCE) this.#leave(job, "This photo has not been processed yet. Check again later.");
    }
    this.#lookLater();
  }

  #seen(job, photo) {
    if (!job) return;
    if (photo.state === "rejected") return this.#leave(job, `Not accepted: ${photo.reason}.`);
    this.#looking.delete(photo.id);
    job.photo = photo;
    this.#move(job, "ready");
  }

  #leave(job, error) {
    this.#looking.delete(job.photoId);
    Object.assign(job, { error, final: true });
    this.#move(job, "failed");
  }
}

/** Waits, but no longer than until the browser is online again. */
function patience(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const end = (settle, value) => {
      clearTimeout(timer);
      removeEventListener("online", online);
      settle(value);
    };
    const online = () => end(resolve);
    const timer = setTimeout(online, milliseconds);
    addEventListener("online", online);
    signal.addEventListener("abort", () => end(reject, signal.reason), { once: true });
  });
}
