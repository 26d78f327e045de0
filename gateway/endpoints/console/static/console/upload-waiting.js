// Waits: until the gateway answers again, and longer after each failure. No DOM.

import { get } from "./api.js";

const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 15_000;

/** Wait after the nth failure: the pause doubles, and is no shorter than `seconds`. Raises where `signal` stops it. */
export function backOff(failures, signal, seconds = 0) {
  const longest = Math.min(FIRST_PAUSE * 2 ** failures, LONGEST_PAUSE);
  // Half of it is chance: many pages must not come back in the same moment (RFC 8085 section 3.1 asks for no less).
  return pause(seconds * 1000 + longest * (0.5 + Math.random() / 2), signal);
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const end = (settle, value) => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", stop);
      settle(value);
    };
    const stop = () => end(reject, signal.reason);
    const timer = setTimeout(() => end(resolve), milliseconds);
    if (signal?.aborted) stop();
    signal?.addEventListener("abort", stop);
  });
}

/** Whether the gateway answers. One request asks, however many uploads wait; api.js goes on asking, and tells. */
export class Availability {
  away = false;
  #onChange;
  #asking = null;

  constructor(onChange) {
    this.#onChange = onChange;
  }

  /** Resolve when the gateway answers, with whether it did not at first. Raises where `signal` stops the wait. */
  back(signal) {
    this.#asking ??= this.#ask().finally(() => { this.#asking = null; });
    return signal ? orStopped(this.#asking, signal) : this.#asking;
  }

  async #ask() {
    const listening = new AbortController();
    const options = { once: true, signal: listening.signal };
    const returned = new Promise((resolve) => addEventListener("gateway:returned", resolve, options));
    const fault = await get("health").then(() => null, (error) => error);
    if (fault === null || fault.status) { // it answers, whatever
      listening.abort();
      return false;
    }
    this.#set(true);
    await returned;
    this.#set(false);
    return true;
  }

  #set(away) {
    this.away = away;
    this.#onChange();
  }
}

/** Wait for a promise. Raises where `signal` stops that. */
export function orStopped(promise, signal) {
  return new Promise((resolve, reject) => {
    if (signal.aborted) reject(signal.reason);
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    promise.then(resolve, reject);
  });
}

/** Return a promise with what settles it. */
export function deferred() {
  const made = {};
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
  return made;
}
