/** One line that is rewritten on a terminal; every half minute a new one elsewhere. */
export class StatusLine {
  #shown = false;
  #last = 0;

  constructor(readonly out: NodeJS.WriteStream = process.stdout) {}

  /** `isLast`: shown also when the line before has just been written. */
  update(words: string, isLast = false): void {
    const terminal = this.out.isTTY;
    const now = performance.now();
    if (now - this.#last < (terminal ? 100 : 30_000) && !isLast) return;
    this.#last = now;
    if (terminal) this.out.write(`\r\x1b[2K${words.slice(0, (this.out.columns ?? 120) - 1)}`);
    else this.out.write(`${words}\n`);
    this.#shown = Boolean(terminal);
  }

  /** A line that stays. */
  print(words: string): void {
    this.clear();
    this.out.write(`${words}\n`);
  }

  clear(): void {
    if (this.#shown) this.out.write('\r\x1b[2K');
    this.#shown = false;
  }
}

/** 75 → '1:15' */
export const clock = (seconds: number): string =>
  Number.isFinite(seconds) ? `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, '0')}` : '?';
