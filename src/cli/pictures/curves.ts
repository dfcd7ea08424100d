import { linearTicks, logTicks } from './axes.ts';
import { pathOf, range, smoothed, thinned, withoutOutliers } from './points.ts';
import type { Point } from './points.ts';
import { drawText, ink, round, textWidth } from './text.ts';

export interface Series {
  name: string;
  x: ArrayLike<number>;
  y: ArrayLike<number>; // what is not finite leaves a gap
  colour?: string;
}

export interface CurvesOptions {
  title?: string;
  xLabel?: string;
  yLabel?: string;
  logY?: boolean; // values that are not above 0 leave a gap
  smoothing?: number; // 0 … 1: share of the running mean that is kept from step to step; the raw curve stays, pale
  width?: number;
  height?: number;
}

/** Okabe and Ito's colours, which the colour-blind can tell apart. */
export const palette = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#000000'];

/** Several curves over one x axis, as SVG. `renderSvg` makes a PNG of it. */
export function drawCurves(series: Series[], options: CurvesOptions = {}): string {
  const { title = '', xLabel = '', yLabel = '', logY = false, smoothing = 0, width = 800, height = 420 } = options;
  const lines = series.map((s, i) => {
    const raw = points(s, logY);
    const smooth = smoothing > 0 ? smoothed(raw, smoothing) : undefined;
    return { name: s.name, colour: s.colour ?? palette[i % palette.length], raw, smooth };
  });
  const shown = lines.flatMap(({ raw }) => raw).filter((p) => p !== undefined);
  const xRange = range(
    shown.map(([x]) => x),
    false,
  );
  const yRange = range(withoutOutliers(shown.map(([, y]) => y)), logY);
  const yTicks = logY ? logTicks(...yRange, 6) : linearTicks(...yRange, 6);
  const xTicks = linearTicks(...xRange, Math.max(2, Math.round(width / 110)));

  const legendTop = title ? 40 : 14;
  const frame = {
    left: 24 + (yLabel ? 18 : 0) + Math.max(20, ...yTicks.map((tick) => textWidth(tick.label, 12))),
    top: legendTop + (lines.length > 0 ? 26 : 0),
    right: width - 24,
    bottom: height - (xLabel ? 52 : 34),
  };
  const toX = (x: number) => frame.left + ((x - xRange[0]) / (xRange[1] - xRange[0])) * (frame.right - frame.left);
  const along = (y: number) => (logY ? Math.log(y) : y);
  const toY = (y: number) =>
    frame.bottom - ((along(y) - along(yRange[0])) / (along(yRange[1]) - along(yRange[0]))) * (frame.bottom - frame.top);

  const svg: string[] = [];
  if (title) svg.push(drawText(title, frame.left, 28, { size: 16, bold: true }));
  for (const { value, label } of yTicks) {
    const y = Math.round(toY(value)) + 0.5;
    svg.push(
      `<path d="M${frame.left} ${y}H${frame.right}" stroke="${ink.grid}"/>`,
      drawText(label, frame.left - 8, y + 4, { size: 12, anchor: 'end', colour: ink.muted }),
    );
  }
  for (const { value, label } of xTicks) {
    const x = Math.round(toX(value)) + 0.5;
    svg.push(
      `<path d="M${x} ${frame.bottom}v5" stroke="${ink.muted}"/>`,
      drawText(label, x, frame.bottom + 19, { size: 12, anchor: 'middle', colour: ink.muted }),
    );
  }
  svg.push(
    `<clipPath id="frame"><path d="M${frame.left} ${frame.top}H${frame.right}V${frame.bottom}H${frame.left}z"/>` +
      '</clipPath><g clip-path="url(#frame)" fill="none" stroke-linejoin="round">',
  );
  const pixels = frame.right - frame.left;
  const curve = (line: Point[], colour: string, style: string) =>
    svg.push(`<path d="${pathOf(thinned(line, pixels), toX, toY)}" stroke="${colour}" ${style}/>`);
  for (const { raw, smooth, colour } of lines) if (smooth) curve(raw, colour, 'stroke-opacity="0.22"');
  for (const { raw, smooth, colour } of lines)
    curve(smooth ?? raw, colour, 'stroke-width="1.8" stroke-linecap="round"');
  svg.push(
    '</g>',
    `<path d="M${frame.left} ${frame.top}V${frame.bottom + 0.5}H${frame.right}" fill="none"` +
      ` stroke="${ink.muted}"/>`,
  );
  if (shown.length === 0) {
    svg.push(
      drawText('no values yet', (frame.left + frame.right) / 2, (frame.top + frame.bottom) / 2, {
        anchor: 'middle',
        colour: ink.muted,
      }),
    );
  }
  if (xLabel) svg.push(drawText(xLabel, (frame.left + frame.right) / 2, height - 14, { size: 13, anchor: 'middle' }));
  if (yLabel)
    svg.push(drawText(yLabel, 20, (frame.top + frame.bottom) / 2, { size: 13, anchor: 'middle', rotate: -90 }));
  let x = frame.left;
  for (const { name, colour } of lines) {
    svg.push(
      `<path d="M${round(x)} ${legendTop + 6.5}h20" stroke="${colour}" stroke-width="3"/>`,
      drawText(name, x + 26, legendTop + 11, { size: 13 }),
    );
    x += 26 + textWidth(name, 13) + 22;
  }
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}">` +
    `<rect width="100%" height="100%" fill="${ink.paper}"/>${svg.join('')}</svg>\n`
  );
}

function points(series: Series, logY: boolean): Point[] {
  return Array.from({ length: Math.min(series.x.length, series.y.length) }, (_, i) => {
    const x = series.x[i],
      y = series.y[i];
    return Number.isFinite(x) && Number.isFinite(y) && (!logY || y > 0) ? [x, y] : undefined;
  });
}
