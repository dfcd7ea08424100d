/** What every part of the run is given. */
export interface PartOptions {
  /** Small shapes, to see that it works. */
  small: boolean;
  say(line: string): void;
  /** That it may still take. */
  seconds(): number;
}
