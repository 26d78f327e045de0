// Runs one upload of the queue until it is stored, refused or stopped, whatever breaks on the way. No DOM.

import { recordOf } from "./upload-job.js";
import { Broken, Refused, hasMoved, keyed, newKey, send, sendWhole } from "./upload-transfer.js";
import { backOff, orStopped } from "./upload-waiting.js";

const MAX_FRUITLESS = 6;
/** Seconds that an upload waits by itself, where the gateway says how long. */
const LONGEST_RETRY_AFTER = 600;
/** Statuses after which the same request may succeed; other refusals are not sent again by themselves. */
export const TRY_AGAIN = new Set([408, 423, 425, 429, 500, 502, 503, 504]);
const BUSY = new Set([423, 429, 503]);
const FROM_A_PROXY = new Set([502, 503, 504]);

/** Reasons of our own, of which the page has translations. */
export const FILE_CHANGED = "The file on this device was changed or removed. Choose it again.";
export const BREAKS = "The connection breaks again and again.";
export const UNSURE = "The answer was lost, so it is not certain that the file is stored.";
export const BEGAN_ANEW = "Nothing of it is kept: it begins anew.";

export class Runner {
  #options;
  #queue;

  /** `options` are those of `Transfers`; `queue` has `move`, `progressed`, `back` and `signIn`. */
  constructor(options, queue) {
    this.#options = options;
    this.#queue = queue;
  }

  /** Run a job. Never raises. */
  async run(job) {
    const stop = (job.stop = new AbortController());
    for (let fruitless = 0; ; ) {
      const before = job.durable;
      this.#queue.move(job, "sending");
      try {
        this.stored(job, await this.#attempt(job, stop.signal));
        return;
      } catch (fault) {
        if (stop.signal.aborted) return;
        fruitless = job.durable > before ? 0 : fruitless + 1;
        try {
          if (!(await this.#goesOn(job, fault, fruitless, stop.signal))) return;
        } catch {
          return; // stopped while it waited
        }
      }
    }
  }

  /** Note that an upload is stored. */
  stored(job, result) {
    Object.assign(job, { result, uploadId: result.upload_id ?? null, file: null });
    this.#queue.progressed(job, job.size, true);
    this.#options.store?.remove(job.key);
    this.#queue.move(job, "stored");
  }

  /** Return the address of an upload. */
  address({ path, key }) {
    return keyed(this.#options.urlOf(path), key);
  }

  async #attempt(job, signal) {
    const headers = this.#options.headers();
    const onProgress = (sent, durable) => this.#queue.progressed(job, sent, durable);
    if (!this.#options.resumable) {
      return sendWhole(job.file, this.#options.urlOf(job.path), { headers, signal, onProgress });
    }
    const asks = job.begun;
    job.begun = true;
    if (!asks) await this.#options.store?.putAll([recordOf(job)]);
    signal.throwIfAborted();
    const onAnswer = (found) => { if (!found && job.durable > 0) job.note = BEGAN_ANEW; };
    return send(job.file, this.address(job), { headers, signal, asks, onProgress, onAnswer });
  }

  /** Wait for what an upload needs to go on; false where it was refused. Raises where it is stopped. */
  async #goesOn(job, fault, fruitless, signal) {
    if (fault instanceof Broken) return this.#afterBreak(job, fruitless, signal);
    if (!(fault instanceof Refused)) return this.#fail(job, { message: String(fault?.message ?? fault) });
    if (fault.status === 401) {
      this.#queue.move(job, "interrupted");
      await orStopped(this.#queue.signIn(), signal);
      return true;
    }
    if (FROM_A_PROXY.has(fault.status) && !fault.code) return this.#afterBreak(job, fruitless, signal);
    if (fault.status === 410) job.key = newKey(); // it cannot go on, and has to begin anew
    if ((hasMoved(fault) || fault.status === 410) && fruitless < MAX_FRUITLESS) return true;
    const isHopeless = fruitless > MAX_FRUITLESS && !BUSY.has(fault.status);
    const seconds = fault.retryAfter;
    if (!TRY_AGAIN.has(fault.status) || seconds > LONGEST_RETRY_AFTER || isHopeless) return this.#fail(job, fault);
    Object.assign(job, { error: fault.message, status: fault.status, waitsUntil: Date.now() + seconds * 1000 });
    this.#queue.move(job, "interrupted");
    await backOff(fruitless, signal, seconds);
    Object.assign(job, { error: "", status: 0, waitsUntil: 0 });
    return true;
  }

  async #afterBreak(job, fruitless, signal) {
    if (!(await isReadable(job.file))) return this.#fail(job, { message: FILE_CHANGED, final: true });
    // Without a key nobody can ask what became of a file whose every byte was sent.
    if (!this.#options.resumable && job.sent >= job.size) return this.#fail(job, { message: UNSURE });
    this.#queue.move(job, "interrupted");
    const wasAway = await this.#queue.back(signal);
    if (!wasAway && fruitless > MAX_FRUITLESS) return this.#fail(job, { message: BREAKS });
    await backOff(wasAway ? 0 : fruitless, signal);
    return true;
  }

  #fail(job, { message, status = 0, retryAfter = 0, final = false }) {
    Object.assign(job, { error: message, status, retryAfter, final });
    if (status >= 400 && status < 500) {
      job.begun = false; // it is over: nothing of it is kept
      this.#options.store?.remove(job.key);
    }
    this.#queue.move(job, "failed");
    return false;
  }
}

/** A browser reports a file that it cannot read (any more) as it reports a broken connection. */
async function isReadable(file) {
  try {
    await file.slice(0, 1).arrayBuffer();
    return true;
  } catch {
    return false;
  }
}
