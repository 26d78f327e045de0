// What becomes of stored files: their handlers' states, asked for in batches until nothing more happens. No DOM.
//
// A stream of server-sent events is for one upload, and a client has its share of 256 of them. One request here tells
// of 50 uploads.

import { get } from "./api.js";

const BATCH = 50;
const FIRST_PAUSE = 400;
const LONGEST_PAUSE = 10_000;
const MAX_FOLLOWED = 5_000;
const MAX_ABSENT = 3;

/** Follows uploads by their ids: `onStatus(job, status)` is told each change. */
export class Watch {
  #onStatus;
  #jobs = new Map();
  #absent = new Map();
  #told = new Map();
  #pause = FIRST_PAUSE;
  #timer = 0;
  #asking = false;

  constructor(onStatus) {
    this.#onStatus = onStatus;
    document.addEventListener("visibilitychange", () => { if (!document.hidden) this.#soon(); });
  }

  follow(job) {
    if (!job.uploadId) return;
    this.#jobs.set(job.uploadId, job);
    if (this.#jobs.size > MAX_FOLLOWED) this.#drop(this.#jobs.keys().next().value);
    this.#soon();
  }

  /** Whether something is still happening. */
  get size() {
    return this.#jobs.size;
  }

  #soon() {
    this.#pause = FIRST_PAUSE;
    if (!this.#asking) this.#schedule();
  }

  #schedule() {
    clearTimeout(this.#timer);
    if (this.#jobs.size && !document.hidden) this.#timer = setTimeout(() => this.#ask(), this.#pause);
  }

  async #ask() {
    this.#asking = true;
    const ids = [...this.#jobs.keys()].slice(0, BATCH);
    const isRest = this.#jobs.size > BATCH;
    try {
      const { uploads } = await get("uploads", { id: ids });
      if (this.#read(ids, uploads) || isRest) this.#pause = FIRST_PAUSE;
      else this.#pause = Math.min(this.#pause * 1.5, LONGEST_PAUSE);
    } catch (fault) {
      // Who may not ask is told nothing; a gateway that is away comes back.
      if ([400, 403, 404].includes(fault.status)) this.#jobs.clear();
      this.#pause = Math.min(this.#pause * 2, LONGEST_PAUSE);
    }
    this.#asking = false;
    this.#schedule();
  }

  #read(ids, statuses) {
    const byId = new Map(statuses.map((status) => [status.upload_id, status]));
    let changed = false;
    for (const id of ids) {
      const status = byId.get(id);
      const job = this.#jobs.get(id);
      if (!job) continue;
      if (!status) {
        this.#absent.set(id, (this.#absent.get(id) ?? 0) + 1);
        if (this.#absent.get(id) >= MAX_ABSENT) this.#drop(id);
        continue;
      }
      const text = JSON.stringify(status);
      if (this.#told.get(id) !== text) {
        changed = true;
        this.#told.set(id, text);
        this.#onStatus(job, status);
      }
      this.#jobs.delete(id);
      if (isSettled(status)) this.#drop(id);
      else this.#jobs.set(id, job); // to the end: others have their turn
    }
    return changed;
  }

  #drop(id) {
    this.#jobs.delete(id);
    this.#absent.delete(id);
    this.#told.delete(id);
  }
}

const FINAL = new Set(["stored", "removed", "rejected", "failed"]);
const ENDED = new Set(["done", "dead"]);

/** Whether nothing more becomes of an upload by itself. */
export function isSettled(status) {
  return FINAL.has(status.state) && (status.handlers ?? []).every((handler) => ENDED.has(handler.state));
}
