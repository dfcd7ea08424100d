/**
 * Weights in several files, and the index that says which tensor is where:
 *
 *     model.safetensors.index.json    { metadata: { total_size }, weight_map: { key: "model-00001-of-00002.safetensors", … } }
 */
import { shown } from './bytes.ts';
import { locate, WeightsError, type WeightSource } from './weights.ts';

/** Key → file, from the text of an index. @throws WeightsError when it is none, or names files elsewhere */
export function parseIndex(text: string, name: string): Map<string, string> {
  let json: any;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new WeightsError(`${name}: not JSON (${(error as Error).message})`);
  }
  const map = json?.weight_map;
  if (typeof map !== 'object' || map === null || Array.isArray(map))
    throw new WeightsError(`${name}: has no weight_map`);
  const rows = Object.entries(map);
  for (const [key, file] of rows) {
    const plain = typeof file === 'string' && /^[^/\\]+$/.test(file) && !file.startsWith('.');
    if (!plain)
      throw new WeightsError(`${name}: ${shown(key)} is in ${shown(String(file))}, which is no file beside the index`);
  }
  return new Map(rows as [string, string][]);
}

/** The shards of an index as one. `open` opens a file by its name. @throws WeightsError naming all tensors that are missing */
export async function shardedSource(
  name: string,
  index: ReadonlyMap<string, string>,
  open: (file: string) => Promise<WeightSource>,
): Promise<WeightSource> {
  const shards = new Map<string, WeightSource>();
  const close = async () => {
    for (const shard of shards.values()) await shard.close();
  };
  try {
    for (const file of new Set(index.values())) shards.set(file, await open(file));
    const of = (key: string) => shards.get(index.get(key)!)!;
    const missing = [...index.keys()].filter((key) => !of(key).entries.has(key));
    if (missing.length) {
      const rows = missing.slice(0, 12).map((key) => `  ${shown(key)}  not in ${shown(index.get(key)!)}`);
      const more = missing.length > 12 ? [`  … and ${missing.length - 12} more`] : [];
      throw new WeightsError([`${name}: the shards lack what the index says`, ...rows, ...more].join('\n'));
    }
    const source: WeightSource = {
      name,
      entries: new Map([...index.keys()].map((key) => [key, of(key).entries.get(key)!])),
      metadata: Object.assign({}, ...[...shards.values()].map(({ metadata }) => metadata)),
      async read(key, rows) {
        locate(source, key, rows);
        return of(key).read(key, rows);
      },
      close,
    };
    return source;
  } catch (error) {
    await close();
    throw error;
  }
}

/** Which tensors go together so that no file is larger than `limit` bytes, unless one tensor is. In order. */
export function packShards(sizes: Iterable<readonly [key: string, bytes: number]>, limit: number): string[][] {
  const shards: string[][] = [];
  let filled = 0;
  for (const [key, bytes] of sizes) {
    if (!shards.length || (filled && filled + bytes > limit)) {
      shards.push([]);
      filled = 0;
    }
    shards.at(-1)!.push(key);
    filled += bytes;
  }
  return shards;
}

/** `stem-00002-of-00010.safetensors` */
export const shardName = (stem: string, number: number, count: number): string => {
  const five = (n: number) => String(n).padStart(5, '0');
  return `${stem}-${five(number)}-of-${five(count)}.safetensors`;
};
