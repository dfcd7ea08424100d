/** Figures as people read them. */

const prefixed = (value: number, step: number, names: readonly string[]): string => {
  const i = value > 0 ? Math.min(names.length - 1, Math.max(0, Math.floor(Math.log(value) / Math.log(step)))) : 0;
  return `${digits(value / step ** i)} ${names[i]}`;
};

/** Three digits that count, no exponent. */
const digits = (value: number): string => (value >= 100 || value === 0 ? value.toFixed(0) : value.toPrecision(3));

/** 3.26 GiB */
export const bytes = (value: number): string => prefixed(value, 1024, ['B', 'KiB', 'MiB', 'GiB', 'TiB']);

/** 803 G, for FLOP and for FLOP/s */
export const flop = (value: number): string => prefixed(value, 1000, ['', 'k', 'M', 'G', 'T', 'P']);

/** 860 M */
export const count = flop;

/** 12 ms, 1.35 s, 12 min 40 s */
export function seconds(value: number): string {
  if (value < 1) return `${digits(1000 * value)} ms`;
  if (value < 120) return `${digits(value)} s`;
  const whole = Math.round(value);
  return whole < 7200
    ? `${Math.floor(whole / 60)} min ${whole % 60} s`
    : `${Math.floor(whole / 3600)} h ${Math.round((whole % 3600) / 60)} min`;
}

/** Columns of words: the first to the left, the others to the right, two blanks between. */
export function table(rows: readonly (readonly string[])[]): string[] {
  const widths = rows[0].map((_, i) => Math.max(...rows.map((row) => row[i].length)));
  return rows.map((row) =>
    row
      .map((cell, i) => (i ? cell.padStart(widths[i]) : cell.padEnd(widths[i])))
      .join('  ')
      .trimEnd(),
  );
}
