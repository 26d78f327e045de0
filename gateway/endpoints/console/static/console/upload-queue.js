// The queue of uploads: what is sent when, paused, gone on with, and given up. No DOM.
//
//   import { Transfers } from "./upload-queue.js";
//   const transfers = new Transfers({
//     urlOf: (path) => address of the file, a string; `path` is what `add` was given,
//     headers: () => ({ Authorization: `Bearer ${secret}` }),   // leave it out where a cookie says who sends
//     refusalOf: (file, path) => "",  // or why a file is not sent at all
//     onChange: (job) => {},          // null: something of the whole. Called often: draw at the next frame
//     store: new UnfinishedUploads("alice"),  // of upload-store.js; leave it out, and a reload forgets
//     resumable: session.uploads.resumable,
//   });
//   transfers.add([{ file, path, relative, handle?, root? }]);   // `relative`: the name that is shown
//
// The gateway is asked by HEAD, PUT and DELETE of `<path>?resume=KEY`: see upload-transfer.js.
//
// A job: `{ relative, path, size, state, sent, error, status, note, waitsUntil, result, uploadId }`. Its states:
//   waiting       its turn comes
//   sending       bytes move; `sent` of `size`
//   interrupted   goes on by itself: `transfers.away`, `transfers.signedOut`, or at `waitsUntil` (why: `error`)
//   paused        goes on by `resume(job)`
//   failed        was refused: `error` has the words of the answer (may be "": then `status` is all), `retry(job)`
//   missing       of an earlier visit: the file has to be chosen again, `add` finds it by name, size and date
//   stored        `result` is the answer (201, 200; 202 where it is held), `uploadId` names it at /-/uploads/<id>
// `transfers.counts` has how many jobs are in each state, `bytes` what is `sent` of `total`, `speed` a Speed.

import { identityOf, newJob, recordOf } from "./upload-job.js";
import { BEGAN_ANEW, Runner, TRY_AGAIN } from "./upload-runner.js";
import { Speed } from "./upload-speed.js";
import { Broken, ask, discard, newKey } from "./upload-transfer.js";
import { Availability, backOff, deferred } from "./upload-waiting.js";

const PARALLEL = 4;
const MAX_REMOVALS = 20;
/** States of jobs whose bytes are not expected. */
const NOT_SUMMED = new Set(["", "failed", "missing"]);

/** States in which a job goes on by itself. */
export const ACTIVE = new Set(["waiting", "sending", "interrupted"]);

export class Transfers {
  jobs = new Set();
  counts = { waiting: 0, sending: 0, interrupted: 0, paused: 0, failed: 0, missing: 0, stored: 0 };
  bytes = { sent: 0, total: 0 };
  speed = new Speed();
  signedOut = false;
  #options;
  #queue = [];
  #missing = new Map();
  #running = 0;
  #availability;
  #signIn = null;
  #runner;

  constructor(options) {
    const usual = { headers: () => ({}), refusalOf: () => "", onChange: () => {}, store: null, resumable: true };
    this.#options = { ...usual, ...options };
    this.#availability = new Availability(() => this.#options.onChange(null));
    this.#runner = new Runner(this.#options, {
      move: (job, state) => this.#move(job, state),
      progressed: (job, sent, durable) => this.#progressed(job, sent, durable),
      back: (signal) => this.#availability.back(signal),
      signIn: () => this.#untilSignedIn(),
    });
  }

  /** Whether the gateway does not answer; everything goes on by itself when it does. */
  get away() {
    return this.#availability.away;
  }

  /** Whether something is to be sent, so that the page must stay. */
  get busy() {
    const { waiting, sending, interrupted } = this.counts;
    return waiting + sending + interrupted > 0;
  }

  // -- what comes in

  /** Take files in; return their jobs. One of an earlier visit goes on where it was. */
  add(entries) {
    const added = [];
    for (const { file, path, relative, handle = null, root = null } of entries) {
      const known = this.#missing.get(identityOf(relative, file));
      if (known) {
        added.push(this.#adopt(known, file));
        continue;
      }
      const facts = { size: file.size, lastModified: file.lastModified, type: file.type };
      const job = newJob({ key: newKey(), path, relative, ...facts, handle, root, begun: false }, file);
      const refusal = this.#options.refusalOf(file, path);
      if (refusal) Object.assign(job, { error: refusal, final: true });
      this.#enter(job, refusal ? "failed" : "waiting");
      added.push(job);
    }
    this.#options.store?.putAll(added.filter((job) => job.state === "waiting").map(recordOf));
    this.#pump();
    return added;
  }

  /** List what earlier visits left. What had all its bytes is stored by asking for it. */
  async restore(records) {
    for (const record of records) {
      if (record.cancelled) this.#discard(record);
      else this.#enter(newJob(record, null), "missing");
    }
    for (const job of [...this.jobs]) if (job.state === "missing" && job.begun) await this.#look(job);
  }

  #enter(job, state) {
    this.jobs.add(job);
    if (state === "missing") this.#missing.set(identityOf(job.relative, job), job);
    this.#move(job, state);
    if (state === "waiting") this.#queue.push(job);
  }

  #adopt(job, file) {
    this.#missing.delete(identityOf(job.relative, job));
    Object.assign(job, { file, error: "" });
    this.#move(job, "waiting");
    this.#queue.push(job);
    return job;
  }

  async #look(job) {
    const told = await ask(this.#runner.address(job), this.#options.headers()).catch(() => undefined);
    if (job.state !== "missing" || told === undefined) return;
    if (told === null) {
      Object.assign(job, { begun: false, note: BEGAN_ANEW });
      return this.#options.onChange(job);
    }
    job.uploadId = told.uploadId;
    if (told.complete) {
      this.#missing.delete(identityOf(job.relative, job));
      this.#runner.stored(job, { upload_id: told.uploadId, bytes: job.size, again: true });
    } else {
      this.#progressed(job, told.offset, true, false);
    }
  }

  // -- what a person does

  pause(job) {
    if (!ACTIVE.has(job.state)) return;
    this.#move(job, "paused");
    job.stop?.abort();
  }

  resume(job) {
    if (job.state !== "paused") return;
    this.#again(job);
  }

  /** Try again what was refused. */
  retry(job) {
    if (job.state !== "failed" || job.final) return;
    this.#again(job);
  }

  /** Leave an upload out, and remove what has come of it. */
  cancel(job) {
    if (!this.jobs.has(job)) return;
    const wasStored = job.state === "stored";
    this.#leave(job);
    job.stop?.abort();
    if (!wasStored) this.#discard(job);
  }

  pauseAll() { for (const job of this.jobs) this.pause(job); }
  resumeAll() { for (const job of this.jobs) this.resume(job); }
  retryAll() { for (const job of this.jobs) this.retry(job); }
  cancelAll() { for (const job of [...this.jobs]) if (job.state !== "stored") this.cancel(job); }

  /** Note that what was held, and counted as stored, was rejected behind its 202. */
  reject(job, error) {
    if (job.state !== "stored") return;
    Object.assign(job, { error, final: true });
    this.#move(job, "failed");
  }

  /** Take what is stored out of the list. */
  clear() { for (const job of [...this.jobs]) if (job.state === "stored") this.#leave(job); }

  /** The session has ended: what is refused for that waits for `signedIn`. */
  signOut() {
    this.signedOut = true;
    this.#signIn ??= deferred();
    this.#options.onChange(null);
  }

  /** Somebody has signed in again: everything goes on. */
  signedIn() {
    this.signedOut = false;
    this.#signIn?.resolve();
    this.#signIn = null;
    this.#options.onChange(null);
  }

  #again(job) {
    Object.assign(job, { error: "", status: 0, code: "", note: "" });
    this.#move(job, "waiting");
    this.#queue.push(job);
    this.#options.store?.putAll([recordOf(job)]);
    this.#pump();
  }

  #leave(job) {
    this.jobs.delete(job);
    this.#missing.delete(identityOf(job.relative, job));
    this.#move(job, "");
  }

  /** Remove what has come of an upload, however long the gateway is away: a reload goes on with that, too. */
  async #discard(record) {
    const store = this.#options.store;
    if (!record.begun || !this.#options.resumable) return void store?.remove(record.key);
    store?.putAll([{ ...recordOf(record), cancelled: true }]);
    // A request that is on its way may begin the upload behind our back, and a browser sends one again by itself
    // whose connection breaks. So it is looked at until it was absent twice, or absent behind its removal.
    for (let tries = 0, absent = 0; tries < MAX_REMOVALS && absent < 2; tries += 1) {
      try {
        absent = (await discard(this.#runner.address(record), this.#options.headers())) ? 1 : absent + 1;
        if (absent < 2) await backOff(2);
      } catch (fault) {
        if (fault instanceof Broken) await this.#availability.back();
        else if (fault.status === 401) await this.#untilSignedIn();
        else if (!TRY_AGAIN.has(fault.status)) break;
        await backOff(tries);
      }
    }
    store?.remove(record.key);
  }

  // -- the work

  #pump() {
    while (this.#running < PARALLEL && this.#queue.length) {
      const job = this.#queue.shift();
      if (job.state !== "waiting") continue;
      this.#running += 1;
      this.#runner.run(job).finally(() => {
        this.#running -= 1;
        this.#pump();
      });
    }
    if (!this.#running) this.#options.onChange(null);
  }

  #progressed(job, sent, durable, isMoving = true) {
    const more = sent - job.sent;
    if (isMoving && more > 0) {
      this.speed.moved(more);
      job.speed.moved(more);
    }
    job.sent = sent;
    if (durable) job.durable = sent;
    if (!NOT_SUMMED.has(job.state)) this.bytes.sent += more;
    this.#options.onChange(job);
  }

  #untilSignedIn() {
    this.signOut();
    return this.#signIn.promise;
  }

  #move(job, state) {
    if (state && !this.jobs.has(job)) return; // left out, while its answer was on the way
    const change = Number(!NOT_SUMMED.has(state)) - Number(!NOT_SUMMED.has(job.state));
    this.bytes.total += change * job.size;
    this.bytes.sent += change * job.sent;
    if (job.state) this.counts[job.state] -= 1;
    if (state) this.counts[state] += 1;
    job.state = state;
    this.#options.onChange(job);
  }
}
