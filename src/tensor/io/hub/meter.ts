/** How a download goes: how much, how fast, how long. */

/** Where a download stands. */
export interface DownloadProgress {
  /** Bytes that are here, with those from before. */
  done: number;
  /** Bytes of all files that were not in the cache whole. */
  total: number;
  /** Bytes a second, over the last ten seconds. */
  rate: number;
  /** Seconds, at that rate. */
  remaining: number;
}

const WINDOW = 10; // seconds

/** Adds up bytes; the rate is of those that came from the hub. */
export class Meter {
  #done = 0;
  #received = 0;
  #samples: { at: number; received: number }[] = [];

  /** `now`: seconds. */
  constructor(
    public total: number,
    readonly now: () => number = () => performance.now() / 1000,
  ) {
    this.#sample();
  }

  add(bytes: number, from: 'hub' | 'disk'): void {
    this.#done += bytes;
    if (from === 'hub') this.#received += bytes;
    this.#sample();
  }

  #sample(): void {
    const at = this.now();
    const last = this.#samples.at(-1);
    if (last && this.#samples.length > 1 && at - last.at < 0.1) last.received = this.#received;
    else this.#samples.push({ at, received: this.#received });
    while (this.#samples.length > 2 && at - this.#samples[1].at > WINDOW) this.#samples.shift();
  }

  get progress(): DownloadProgress {
    const [first] = this.#samples;
    const seconds = this.now() - first.at;
    const rate = seconds > 0 ? (this.#received - first.received) / seconds : 0;
    return {
      done: this.#done,
      total: this.total,
      rate,
      remaining: rate > 0 ? (this.total - this.#done) / rate : Infinity,
    };
  }
}

/** 1234567 → '1.2 MB': powers of ten, as the hub and disks count. */
export function size(bytes: number): string {
  const power = Math.min(4, Math.max(0, Math.floor(Math.log10(Math.max(1, bytes)) / 3)));
  const value = bytes / 1000 ** power;
  return `${power === 0 ? value : value.toFixed(value < 100 ? 1 : 0)} ${['bytes', 'kB', 'MB', 'GB', 'TB'][power]}`;
}
