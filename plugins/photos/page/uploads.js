// Uploads, a few at a time. A job goes: waiting, sending, looking (the gateway makes its copies), then
// ready; or failed, which can be tried again; or cancelled. The page listens for changes and draws them.

import { ApiError } from "./api.js";

const PARALLEL = 3;
const TRIES = 4;
const BUSY = new Set([429, 503]);
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

  add(file, words) {
    const job = { file, words, state: "waiting", sent: 0, error: "", stop: null, began: 0 };
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
    Object.assign(job, { state: "waiting", sent: 0, error: "", status: 0, photoId: undefined });
    this.#enter(job);
  }

  cancel(job) {
    job.stop?.abort();
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
    const facts = { ...job.words, contentType: job.file.type, bytes: job.file.size };
    const begun = await this.#patiently(job, () => this.#api.initiate(facts, job.stop.signal));
    job.photoId = begun.photoId;
    await put(job, begun, () => this.#changed(job));
    if (job.state !== "sending") return;
    job.began = Date.now();
    this.#looking.set(job.photoId, job);
    this.#move(job, "looking");
    this.#pause = 400;
    this.#lookLater();
  }

  async #patiently(job, ask) {
    for (let tried = 1; ; tried += 1) {
      try {
        return await ask();
      } catch (fault) {
        if (!BUSY.has(fault.status) || tried === TRIES) throw fault;
        await sleep((fault.retryAfter || tried) * 1000, job.stop.signal);
      }
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

/** PUTs the bytes; XMLHttpRequest, for fetch tells no progress. */
function put(job, { s3PutObjectUrl, headers }, progressed) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("PUT", s3PutObjectUrl);
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => {
      job.sent = event.loaded;
      progressed();
    };
    // Taken already: an earlier try arrived and only its answer was lost.
    const arrived = () => (request.status >= 200 && request.status < 300) || [409, 412].includes(request.status);
    request.onload = () => (arrived() ? resolve() : reject(new ApiError(request.status, reasonOf(request))));
    request.onerror = () => reject(new ApiError(0, "The connection broke."));
    request.onabort = () => resolve();
    job.stop.signal.addEventListener("abort", () => request.abort());
    request.send(job.file);
  });
}

/** The gateway tells its reasons in JSON; a bucket in words that are not for people. */
function reasonOf(request) {
  try {
    const { error, message } = JSON.parse(request.responseText);
    return error === "expired" ? RUN_OUT : `Refused: ${message}.`;
  } catch {
    return request.status === 403 ? RUN_OUT : `The storage answered ${request.status}.`;
  }
}

const RUN_OUT = "The permission to upload has run out. Try again.";

function sleep(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
