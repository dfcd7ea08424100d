/** The known word with the fewest edits, when it is near enough to be a slip. `plain` is what is compared. */
export function nearest(
  word: string,
  known: readonly string[],
  plain: (text: string) => string = (text) => text,
): string | undefined {
  const own = plain(word);
  let best: string | undefined;
  let limit = Math.max(2, own.length / 3);
  for (const name of known) {
    const other = plain(name);
    if (Math.abs(own.length - other.length) > limit) continue;
    const distance = edits(own, other);
    if (distance > limit || (best !== undefined && distance === limit)) continue;
    best = name;
    limit = distance;
  }
  return best;
}

/** Levenshtein distance, a swap of neighbours counting as one edit. */
function edits(a: string, b: string): number {
  const rows = Array.from({ length: a.length + 1 }, (_, i) => [i, ...Array<number>(b.length).fill(0)]);
  for (let j = 1; j <= b.length; j++) rows[0][j] = j;
  for (let i = 1; i <= a.length; i++) {
    for (let j = 1; j <= b.length; j++) {
      rows[i][j] = Math.min(
        rows[i - 1][j] + 1,
        rows[i][j - 1] + 1,
        rows[i - 1][j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1),
      );
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        rows[i][j] = Math.min(rows[i][j], rows[i - 2][j - 2] + 1);
    }
  }
  return rows[a.length][b.length];
}
