/** A chart of a training log, as SVG for a page: its colours come from the page's style, its values from `hover.ts`. */
import { linearTicks, logTicks } from '../pictures/axes.ts';
import { pathOf, range, smoothed, thinned, withoutOutliers } from '../pictures/points.ts';
import type { Point } from '../pictures/points.ts';
import { escapeXml } from '../pictures/text.ts';

export interface Line {
  /** Its key among the values that are shown under the pointer. */
  key: string;
  name: string;
  values: readonly (number | null)[];
}

export interface ChartOptions {
  title: string;
  /** Of the x axis, one for each value. */
  steps: readonly number[];
  lines: readonly Line[];
  logY?: boolean;
  /** Share of the running mean that is kept from step to step; the raw curve stays, pale. */
  smoothing?: number;
  isWide?: boolean;
}

const HEIGHT = 210;
const frame = { left: 56, top: 10, bottom: HEIGHT - 26 };

export function chart(options: ChartOptions): string {
  const { title, steps, lines, logY = false, smoothing = 0, isWide = false } = options;
  const width = isWide ? 1120 : 550;
  const right = width - 12;
  const raw = lines.map(({ values }) =>
    values.map((y, i): Point => (y !== null && Number.isFinite(y) && (!logY || y > 0) ? [steps[i], y] : undefined)),
  );
  const shown = raw.flat().filter((point) => point !== undefined);
  const [x0, x1] = extent(steps);
  const [y0, y1] = range(withoutOutliers(shown.map(([, y]) => y)), logY);
  const along = logY ? Math.log : (y: number) => y;
  const toX = (x: number) => frame.left + ((x - x0) / (x1 - x0)) * (right - frame.left);
  const toY = (y: number) =>
    frame.bottom - ((along(y) - along(y0)) / (along(y1) - along(y0))) * (frame.bottom - frame.top);
  const grid = (logY ? logTicks(y0, y1, 5) : linearTicks(y0, y1, 5)).map(({ value, label }) => {
    const y = Math.round(toY(value)) + 0.5;
    return `<path class="grid" d="M${frame.left} ${y}H${right}"/><text x="${frame.left - 7}" y="${y + 4}" text-anchor="end">${label}</text>`;
  });
  const below = linearTicks(x0, x1, isWide ? 10 : 5)
    .filter(({ value }) => Number.isInteger(value))
    .map(
      ({ value, label }) => `<text x="${toX(value).toFixed(1)}" y="${HEIGHT - 8}" text-anchor="middle">${label}</text>`,
    );
  const curves = raw.flatMap((points, i) => {
    const path = (line: Point[], style: string) =>
      `<path class="${style} line${i}" d="${pathOf(thinned(line, right - frame.left), toX, toY)}"/>`;
    return smoothing ? [path(points, 'pale'), path(smoothed(points, smoothing), 'curve')] : [path(points, 'curve')];
  });
  const scale = { x0, x1, y0, y1, logY, left: frame.left, right, top: frame.top, bottom: frame.bottom };
  const data = { ...scale, lines: lines.map(({ key, name }) => ({ key, name: lines.length > 1 ? name : '' })) };
  return `<figure class="chart${isWide ? ' wide' : ''}">
<figcaption><b>${escapeXml(title)}</b>${lines.length > 1 ? lines.map(({ name }, i) => ` <i class="line${i}">${escapeXml(name)}</i>`).join('') : ''}<output></output></figcaption>
<svg viewBox="0 0 ${width} ${HEIGHT}" tabindex="0" role="img" aria-label="${escapeXml(`${title} over the steps`)}" data-chart="${escapeXml(JSON.stringify(data))}">
${grid.join('')}${below.join('')}<path class="axis" d="M${frame.left} ${frame.bottom + 0.5}H${right}"/>
<svg x="${frame.left}" y="${frame.top - 3}" width="${right + 3 - frame.left}" height="${frame.bottom + 6 - frame.top}" viewBox="${frame.left} ${frame.top - 3} ${right + 3 - frame.left} ${frame.bottom + 6 - frame.top}">${curves.join('')}</svg><path class="cross" visibility="hidden"/>${lines.map((_, i) => `<circle class="line${i}" r="3.5" visibility="hidden"/>`).join('')}
</svg></figure>`;
}

function extent(steps: readonly number[]): [number, number] {
  const [first, last] = [steps[0] ?? 0, steps.at(-1) ?? 1];
  return first === last ? [first - 0.5, last + 0.5] : [first, last];
}
