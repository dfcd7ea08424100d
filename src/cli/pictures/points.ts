/** The points of a curve on their way to the screen. */
import { round } from './text.ts';

export type Point = [x: number, y: number] | undefined; // undefined: a gap

/** Exponential running mean, corrected for its start, so that it does not lag from the first value. */
export function smoothed(line: Point[], keep: number): Point[] {
  let mean = 0,
    weight = 0;
  return line.map((point) => {
    if (!point) return undefined;
    mean = keep * mean + (1 - keep) * point[1];
    weight = keep * weight + (1 - keep);
    return [point[0], mean / weight];
  });
}

/** The lowest and highest of every group of neighbours, when there are more points than pixels. */
export function thinned(line: Point[], pixels: number): Point[] {
  const group = Math.ceil(line.length / pixels);
  if (group <= 2) return line;
  const kept: Point[] = [];
  for (let i = 0; i < line.length; i += group) {
    const part = line.slice(i, i + group).filter((point) => point !== undefined);
    if (part.length === 0) {
      kept.push(undefined);
      continue;
    }
    const low = part.reduce((a, b) => (b[1] < a[1] ? b : a)),
      high = part.reduce((a, b) => (b[1] > a[1] ? b : a));
    kept.push(...(low === high ? [low] : low[0] <= high[0] ? [low, high] : [high, low]));
  }
  return kept;
}

export function pathOf(line: Point[], toX: (x: number) => number, toY: (y: number) => number): string {
  let path = '',
    pen = 'M';
  for (const [i, point] of line.entries()) {
    if (point) path += `${pen}${round(toX(point[0]))} ${round(toY(point[1]))}`;
    if (point && pen === 'M' && !line[i + 1]) path += 'h0.01'; // a point on its own
    pen = point ? 'L' : 'M';
  }
  return path;
}

/** A few spikes (the first loss, one bad batch) must not flatten the rest: 0.5 % at either end may leave the frame. */
export function withoutOutliers(values: number[]): number[] {
  if (values.length < 200) return values;
  const sorted = Float64Array.from(values).sort();
  const cut = Math.floor(sorted.length * 0.005);
  return [sorted[cut], sorted[sorted.length - 1 - cut]];
}

/** What the axis spans: the values and a little air. */
export function range(values: number[], log: boolean): [number, number] {
  let low = Infinity,
    high = -Infinity;
  for (const value of values) [low, high] = [Math.min(low, value), Math.max(high, value)];
  if (low > high) return log ? [0.1, 1] : [0, 1];
  if (log) return low === high ? [low / 2, low * 2] : [low / (high / low) ** 0.04, high * (high / low) ** 0.04];
  if (low === high) return [low - (Math.abs(low) || 1) / 2, low + (Math.abs(low) || 1) / 2];
  const air = (high - low) * 0.04;
  return [low >= 0 && low < 0.35 * high ? 0 : low - air, high + air];
}
