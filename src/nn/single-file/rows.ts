/** How keys of the two layouts belong together. */

/** What is done to a tensor of the single file to have that of diffusers; back, the reverse. */
export type RowOp =
  /** The same numbers, a matrix instead of a 1×1 convolution: [C, C, 1, 1] → [C, C]. */
  | 'reshape'
  /** [in, out] → [out, in] */
  | 'transpose'
  /** One third of the rows: q, k and v in one matrix. */
  | { third: 0 | 1 | 2 };

/** Where a tensor is in either layout. */
export interface KeyRow {
  /** Without the prefix of its part. */
  single: string;
  diffusers: string;
  op?: RowOp;
}

/** One part of a model (U-Net, VAE, a text encoder) in both layouts. Keys that a map does not know have no row. */
export interface KeyMap {
  fromSingle(keys: readonly string[]): KeyRow[];
  fromDiffusers(keys: readonly string[]): KeyRow[];
}

/** Names that differ, single file first. */
export type Pairs = readonly (readonly [single: string, diffusers: string])[];

/** `name` with its first part renamed, whole parts only: 'norm1.weight' by [in_layers.0, norm1] → 'in_layers.0.weight'. */
export function rename(name: string, pairs: Pairs, to: 'single' | 'diffusers'): string | undefined {
  for (const [single, diffusers] of pairs) {
    const [from, into] = to === 'single' ? [diffusers, single] : [single, diffusers];
    if (name === from || name.startsWith(`${from}.`)) return into + name.slice(from.length);
  }
  return undefined;
}

/** Rows of the keys that `other` finds a counterpart for. */
export const rowsOf = (
  keys: readonly string[],
  side: 'single' | 'diffusers',
  other: (key: string) => string | undefined,
  op: (diffusers: string) => RowOp | undefined = () => undefined,
): KeyRow[] =>
  keys.flatMap((key) => {
    const found = other(key);
    if (found === undefined) return [];
    const row = side === 'single' ? { single: key, diffusers: found } : { single: found, diffusers: key };
    const how = op(row.diffusers);
    return [how ? { ...row, op: how } : row];
  });
