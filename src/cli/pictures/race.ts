/** Several ways to draw the same pictures, as they come to be: an animation in which the clock of all runs alike. */
import sharp from 'sharp';
import type { RgbImage } from './image.ts';
import { drawSheet } from './sheet.ts';
import type { Sheet } from './sheet.ts';

/** One picture on its way. */
export interface Course {
  /** What is to be seen, and from how many seconds on; the last is the picture itself. */
  stages: { at: number; image: RgbImage; caption: string }[];
}

/** A row for each picture, a column for each way; the same order as in `Sheet`. */
export interface Race extends Omit<Sheet, 'rows'> {
  rows: { title?: string; courses: Course[] }[];
}

/** Seconds that the slowest takes on the screen, and that its end is held. */
const RUN = 6;
const HOLD = 2.5;
/** Shorter frames are left out: nobody sees them, and browsers show them longer than they are. */
const SHORTEST = 0.05;

/** An animated WebP that starts again after its end. Time is scaled so that the slowest way takes six seconds. */
export async function drawRace({ rows, ...sheet }: Race): Promise<Buffer> {
  const events = [
    ...new Set(rows.flatMap(({ courses }) => courses.flatMap(({ stages }) => stages.map(({ at }) => at)))),
  ];
  const end = Math.max(...events);
  const scale = RUN / end;
  const times = [0];
  for (const at of events.sort((a, b) => a - b))
    if ((at - times.at(-1)!) * scale >= SHORTEST || at === end) times.push(at);
  const [{ image }] = rows[0].courses[0].stages;
  const nothing = { ...image, data: new Uint8Array(image.data.length).fill(0xee) };
  const frames = await Promise.all(
    times.map((time) =>
      drawSheet({
        ...sheet,
        subtitle: time === 0 ? 'the same noise for both' : `after ${clock(time, end)}`,
        rows: rows.map(({ title, courses }) => ({
          title,
          cells: courses.map(({ stages }) => {
            const now = stages.filter(({ at }) => at <= time).at(-1);
            return { image: now?.image ?? nothing, caption: now?.caption ?? '…' };
          }),
        })),
      }),
    ),
  );
  const delay = times.map((time, i) =>
    Math.round(1000 * (i + 1 < times.length ? (times[i + 1] - time) * scale : HOLD)),
  );
  return sharp(frames, { join: { animated: true } })
    .webp({ loop: 0, delay, quality: 88, effort: 4 })
    .toBuffer();
}

/** With as many digits as tell the frames apart. */
const clock = (seconds: number, end: number): string =>
  end < 2 ? `${(1000 * seconds).toFixed(end < 0.1 ? 1 : 0)} ms` : `${seconds.toFixed(end < 10 ? 2 : 1)} s`;

/** How time runs in the animation: '3.1 times slower', 'as it was', '12 times faster' */
export function pace(end: number): string {
  const ratio = end / RUN;
  if (Math.abs(Math.log(ratio)) < 0.05) return 'as fast as it was';
  return ratio > 1
    ? `${ratio.toPrecision(2)} times faster than it was`
    : `${(1 / ratio).toPrecision(2)} times slower than it was`;
}
