// How fast bytes move, smoothed, and how long the rest takes. No DOM.

const SMOOTHING = 5_000;
const PAUSE = 3_000;
/** Before that, and beyond, an estimate is a guess. */
const FIRST_ESTIMATE = 2_500;
const LONGEST_ESTIMATE = 86_400;

/** A speed over the latest seconds: `moved(bytes)` whenever some have moved. */
export class Speed {
  #rate = 0;
  #bytes = 0;
  #began = 0;
  #latest = 0;
  #since = 0;

  moved(bytes, now = performance.now()) {
    if (now - this.#latest > PAUSE) {
      this.#began = this.#since = now; // a break counts for nothing
      this.#bytes = 0;
    }
    this.#latest = now;
    this.#bytes += bytes;
    const elapsed = now - this.#began;
    if (elapsed < 400) return;
    const rate = (this.#bytes / elapsed) * 1000;
    const weight = this.#rate ? 1 - Math.exp(-elapsed / SMOOTHING) : 1;
    this.#rate += (rate - this.#rate) * weight;
    this.#began = now;
    this.#bytes = 0;
  }

  /** Bytes a second; 0 where it is not known, or nothing has moved for a while. */
  value(now = performance.now()) {
    return now - this.#latest > PAUSE ? 0 : this.#rate;
  }

  /** Seconds that `bytes` take, null where that is not known. */
  secondsFor(bytes, now = performance.now()) {
    const rate = this.value(now);
    if (!rate || now - this.#since < FIRST_ESTIMATE) return null;
    const seconds = Math.max(0, bytes) / rate;
    return seconds > LONGEST_ESTIMATE ? null : seconds;
  }
}
