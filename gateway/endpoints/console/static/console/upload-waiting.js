// Waits: until the gateway answers again, and longer after each failure. No DOM.

import { API } from "./api.js";

const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 15_000;
const PROBE_TIMEOUT = 10_000;

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

/** Whether the gateway answers. One request asks, however many uploads wait. */
export class Availability {
  away = false;
  #onChange;
  #probing = null;

  constructor(onChange) {
    this.#onChange = onChange;
  }

  /** Resolve when the gateway answers, with whether it did not at first. Raises where `signal` stops the wait. */
  back(signal) {
    this.#probing ??= this.#probe().finally(() => { this.#probing = null; });
    return signal ? orStopped(this.#probing, signal) : this.#probing;
  }

  async #probe() {
    for (let failures = 0; ; failures += 1) {
      if (await answers()) {
        const wasAway = this.away;
        this.#set(false);
        return wasAway;
      }
      this.#set(true);
      await Promise.race([backOff(failures), online()]);
    }
  }

  #set(away) {
    if (this.away === away) return;
    this.away = away;
    this.#onChange();
  }
}

async function answers() {
  try {
    const options = { cache: "no-store", signal: AbortSignal.timeout(PROBE_TIMEOUT) };
    return (await fetch(new URL("health", API), options)).ok;
  } catch {
    return false;
  }
}

/** Resolve when the device is connected again. */
function online() {
  return new Promise((resolve) => addEventListener("online", resolve, { once: true }));
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
