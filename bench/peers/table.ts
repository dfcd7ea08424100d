/** The comparison as text: times, then how many times as long as ours each library takes, then what went wrong. */
import type { Comparison, Row } from './compare.ts';

export function table({ versions, rows }: Comparison): string {
  const names = Object.keys(rows[0]?.peers ?? versions);
  const title = (name: string) => (versions[name] ? `${name} ${versions[name]}` : name);
  const failures = new Map<string, string[]>();
  for (const { name: row, peers } of rows) {
    for (const [name, { error }] of Object.entries(peers)) {
      if (error) failures.set(`${name}: ${error}`, [...(failures.get(`${name}: ${error}`) ?? []), row]);
    }
  }
  return [
    'Milliseconds a call; in brackets GFLOP/s, or GB/s where a call only moves numbers (marked g).',
    grid([['', ...names.map(title)], ...rows.map((row) => [row.name, ...names.map((name) => time(row, name))])]),
    '',
    'Time over our time: above 1, ours is faster.',
    grid([
      ['', ...names.slice(1)],
      ...rows.map((row) => [row.name, ...names.slice(1).map((name) => ratio(row, name))]),
    ]),
    '',
    'The same for processor time, all threads together: less is disturbed by others, and who uses one thread gains.',
    grid([
      ['', ...names.slice(1)],
      ...rows.map((row) => [row.name, ...names.slice(1).map((name) => ratio(row, name, 'processor'))]),
    ]),
    '',
    'First call, compiling included, in milliseconds.',
    grid([
      ['', ...names],
      ...rows.map((row) => [row.name, ...names.map((name) => row.peers[name].cold?.toFixed(0) ?? '–')]),
    ]),
    ...(failures.size ? ['', 'Left out:'] : []),
    ...[...failures].map(
      ([what, where]) => `  ${what} (${where.length === rows.length ? 'everything' : where.join(', ')})`,
    ),
    '',
  ].join('\n');
}

/** '8.98 (29.9)' */
export function time({ flop, bytes, peers }: Row, name: string): string {
  const { milliseconds, error } = peers[name];
  if (milliseconds === undefined) return error ? '–' : '';
  const rate = flop
    ? (flop / milliseconds / 1e6).toFixed(1)
    : bytes
      ? `${(bytes / milliseconds / 1e6).toFixed(2)} g`
      : '';
  return `${short(milliseconds)}${rate && ` (${rate})`}`;
}

export function ratio({ peers }: Row, name: string, of: 'milliseconds' | 'processor' = 'milliseconds'): string {
  const [own, other] = [Object.values(peers)[0][of], peers[name][of]];
  return own && other ? (other / own).toFixed(2) : '–';
}

const short = (x: number): string => (x < 100 ? x.toPrecision(3) : x.toFixed(0));

/** Columns as wide as they need, the first to the left. */
function grid(cells: string[][]): string {
  const widths = cells[0].map((_, i) => Math.max(...cells.map((row) => row[i].length)));
  return cells
    .map((row) =>
      row
        .map((cell, i) => (i ? cell.padStart(widths[i]) : cell.padEnd(widths[i])))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}
