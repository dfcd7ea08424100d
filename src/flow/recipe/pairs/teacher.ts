/** Which teacher made pairs: the sha256 of its U-Net, whichever way that lies on disk. */
import { createHash } from 'node:crypto';
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { writeAtomic } from '../../../tensor/io/files-node.ts';
import type { WeightSource } from '../../../tensor/io/weights.ts';
import { findWeights, openWeights } from '../../../tensor/io/weights-node.ts';
import type { NetworkName } from '../../pipelines/options.ts';
import { openModelParts } from '../model-parts.ts';

/** Key, dtype, shape and bytes of every tensor, in the order of keys: the same for a folder, shards and a single file. */
export async function hashWeights(source: WeightSource): Promise<string> {
  const hash = createHash('sha256');
  for (const key of [...source.entries.keys()].sort()) {
    const { dtype, shape } = source.entries.get(key)!;
    hash.update(`${key} ${dtype} [${shape.join(', ')}]\n`).update(await source.read(key));
  }
  return hash.digest('hex');
}

/**
 * The sha256 of a model's network. `cache` is a file that keeps it for as long as the weights on disk keep their sizes and
 * times: those of Stable Diffusion take some seconds to read.
 */
export async function teacherHash(
  model: string,
  network: NetworkName,
  { variant, cache }: { variant?: string; cache: string },
): Promise<string> {
  const stamp = JSON.stringify([network, variant ?? '', await stampOf(model, network)]);
  const kept = await readFile(cache, 'utf8').then(
    (text) => text.split('\n'),
    () => [],
  );
  if (kept[0] === stamp && /^[\da-f]{64}$/.test(kept[1])) return kept[1];
  const sha256 = await hashNetwork(model, network, variant);
  // Without a cache it is computed again next time.
  await writeAtomic(cache, `${stamp}\n${sha256}\n`).catch(() => {});
  return sha256;
}

async function hashNetwork(model: string, network: NetworkName, variant?: string): Promise<string> {
  if ((await stat(model)).isDirectory()) {
    const source = await openWeights(await findWeights(join(model, network), { variant }));
    try {
      return await hashWeights(source);
    } finally {
      await source.close();
    }
  }
  const parts = await openModelParts(model);
  try {
    return await hashWeights(parts.sources.unet!);
  } finally {
    await parts.close();
  }
}

/** Name, size and time of every file that the network's weights may be in. */
async function stampOf(model: string, network: NetworkName): Promise<unknown[]> {
  const isFolder = (await stat(model)).isDirectory();
  const folder = join(model, network);
  const files = isFolder ? (await readdir(folder)).sort().map((name) => join(folder, name)) : [model];
  return Promise.all(
    files.map(async (file) => {
      const { size, mtimeMs } = await stat(file);
      return [file, size, mtimeMs];
    }),
  );
}
