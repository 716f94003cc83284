// A series as it was observed, and what was predicted of it: plain values, no page, no network.

const POINTS_MAX = 1024;
const PREDICTIONS_MAX = 512;
const SHOWN_WITHIN = 32;

/** Observations by time, and predictions by the observation that they were made after. */
export class Observed {
  #times = [];
  #values = [];
  #predictions = new Map();
  #newest = null;

  get times() {
    return this.#times;
  }

  get values() {
    return this.#values;
  }

  /** The prediction of the highest number. */
  get newest() {
    return this.#newest;
  }

  /** Takes what is kept of the series. Late ones go where they belong, and the same again changes nothing. */
  observe(ticks) {
    for (const { ts, value } of ticks) {
      const at = this.#place(ts);
      if (this.#times[at] === ts) {
        this.#values[at] = value;
      } else {
        this.#times.splice(at, 0, ts);
        this.#values.splice(at, 0, value);
      }
    }
    const surplus = this.#times.length - POINTS_MAX;
    if (surplus > 0) {
      this.#times.splice(0, surplus);
      this.#values.splice(0, surplus);
    }
  }

  /** Takes a prediction; of two with one number, that of the higher epoch. False: it is known already, or an older one. */
  predict(one) {
    const old = this.#predictions.get(one.ts);
    if (old && (old.epoch > one.epoch || (old.epoch === one.epoch && old.seq >= one.seq))) return false;
    this.#predictions.set(one.ts, one);
    if (this.#predictions.size > PREDICTIONS_MAX) this.#predictions.delete(this.#predictions.keys().next().value);
    const newest = this.#newest;
    if (!newest || one.epoch > newest.epoch || (one.epoch === newest.epoch && one.seq > newest.seq)) this.#newest = one;
    return true;
  }

  /** What can be drawn: the prediction made after the last observation that one was made after, or null. */
  get shown() {
    for (let at = this.#times.length - 1; at >= Math.max(0, this.#times.length - SHOWN_WITHIN); at -= 1) {
      const one = this.madeAfter(at);
      if (one) return one;
    }
    return null;
  }

  /** Where the observation of this moment is, or -1. */
  index(ts) {
    const at = this.#place(ts);
    return this.#times[at] === ts ? at : -1;
  }

  /** The prediction that was made after an observation. */
  madeAfter(index) {
    return this.#predictions.get(this.#times[index]) ?? null;
  }

  /** What the prediction before an observation said of it: centre and bounds by level; null: nothing was said. */
  foretold(index) {
    const one = index > 0 ? this.madeAfter(index - 1) : null;
    if (!one) return null;
    const bounds = one.intervals.map(({ level, lo, hi }) => ({ level, lo: lo[0], hi: hi[0] }));
    return { centre: centre(one)[0], bounds };
  }

  /** The usual time between two observations, in milliseconds; 0: not known. */
  get step() {
    const last = this.#times.slice(-33);
    const gaps = last.slice(1).map((ts, at) => ts - last[at]).sort((a, b) => a - b);
    return gaps.length > 0 ? gaps[gaps.length >> 1] : 0;
  }

  /** Of observations from `from` on that were foretold: how many, mean error, and how many were within each level. */
  tally(from) {
    const levels = new Map();
    let [count, errors] = [0, 0];
    for (let at = Math.max(1, from); at < this.#times.length; at += 1) {
      const said = this.#values[at] === null ? null : this.foretold(at);
      if (!said) continue;
      count += 1;
      errors += Math.abs(this.#values[at] - said.centre);
      for (const { level, lo, hi } of said.bounds) {
        const held = levels.get(level) ?? 0;
        levels.set(level, held + (this.#values[at] >= lo && this.#values[at] <= hi ? 1 : 0));
      }
    }
    return { count, error: count > 0 ? errors / count : null, levels: [...levels].sort(([a], [b]) => a - b) };
  }

  // The first index whose time is not before.
  #place(ts) {
    let [low, high] = [0, this.#times.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#times[middle] < ts) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** Its median, or its mean where the model has no median. */
export const centre = (prediction) => prediction.median ?? prediction.mean ?? [];
