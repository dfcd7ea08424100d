import { stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { decodeLatents } from '../../flow/pipelines/images.ts';
import { channelStatistics } from '../../flow/recipe/pairs/statistics.ts';
import { openAutoencoder } from '../../flow/recipe/pairs/autoencoder.ts';
import { PairError, readManifest } from '../../flow/recipe/pairs/manifest.ts';
import type { PairShard } from '../../flow/recipe/pairs/manifest.ts';
import { checkShard, PairSet } from '../../flow/recipe/pairs/pair-set.ts';
import { currentGpu, init } from '../../tensor/index.ts';
import { exists, writeAtomic } from '../../tensor/io/files-node.ts';
import { command, int, positional, required, text } from '../command.ts';
import { modelPath } from '../model-path.ts';
import { imagesFromFloats } from '../pictures/image.ts';
import { drawGrid } from '../pictures/sheet.ts';
import * as show from '../units.ts';

export const inspect = command(
  'pairs inspect',
  'what is in pairs: the manifest, whether every shard is what it says, statistics, and a picture',
  {
    place: positional(text(required, 'a folder of pairs, or one shard in it')),
    model: text(undefined, 'whose autoencoder decodes the latents (the teacher, by its name in the manifest)'),
    variant: text(undefined, 'which of several sets of weights to take, such as fp16'),
    num: int(16, 'pairs in the picture', { min: 1 }),
    out: text(undefined, 'PNG file to write (pairs.png in the folder of the pairs, or <shard>.png)'),
  },
  async ({ place, model, variant, num, out }) => {
    const { folder, only } = await placeOf(place);
    const shards = (await readManifest(folder)).filter(({ shard }) => only === undefined || shard === only);
    const [first] = shards;
    // Says what is wrong when there is no such thing.
    if (!first) return void (await PairSet.open(folder, { only }));
    for (const [name, value] of facts(shards)) console.log(`${name.padEnd(9)} ${value}`);
    const problems: string[] = [];
    const good: PairShard[] = [];
    for (const shard of shards) {
      try {
        await checkShard(folder, shard);
        good.push(shard);
      } catch (error) {
        if (!(error instanceof PairError)) throw error;
        problems.push(error.message);
      }
    }
    console.log(`${good.length} of ${shards.length} shards are what the manifest says`);
    if (problems.length === 0) await PairSet.open(folder, { only }).then((set) => set.close(), (error: PairError) => problems.push(error.message)); // prettier-ignore
    if (good.length) await look(folder, good[0], { model, variant, num, out: out ?? pictureOf(folder, only) });
    if (problems.length) throw new PairError(problems.join('\n'));
  },
);

async function placeOf(place: string): Promise<{ folder: string; only?: string }> {
  const info = await stat(place).catch(() => undefined);
  const isFolder = info ? info.isDirectory() : !place.endsWith('.tar');
  return isFolder ? { folder: place } : { folder: dirname(place), only: basename(place) };
}

const pictureOf = (folder: string, only?: string): string =>
  join(folder, only ? only.replace(/tar$/, 'png') : 'pairs.png');

function facts(shards: readonly PairShard[]): [name: string, value: string][] {
  const [first] = shards;
  const sum = (key: 'samples' | 'skipped' | 'bytes') => shards.reduce((n, shard) => n + shard[key], 0);
  const { scaling } = first;
  const scales = Object.entries(scaling).map(([key, value]) => `${key} ${Array.isArray(value) ? 'by channel' : value}`);
  return [
    ['teacher', `${first.model}, ${first.teacher.network}, sha256 ${first.teacher.sha256.slice(0, 16)}…`],
    ['made by', `${first.scheduler}, ${first.steps} steps, guidance ${first.guidance_scale}, ${first.dtype}`],
    ['on', [...new Set(shards.map(({ adapter }) => adapter))].join(', ')],
    ['latents', `[${first.latent_shape.join(', ')}] ${first.latents_dtype}, ${scales.join(', ')}`],
    ['noise', `${first.noise}, seeds ${first.seeds[0]} … ${shards.at(-1)!.seeds[1]}`],
    [
      'pairs',
      `${sum('samples')} of ${first.total_samples} in ${shards.length} shard${shards.length > 1 ? 's' : ''}, ${show.bytes(sum('bytes'))}`,
    ],
    ['left out', String(sum('skipped'))],
  ];
}

/** Statistics of a shard, and its pairs as pictures. */
async function look(
  folder: string,
  shard: PairShard,
  { model, variant, num, out }: { model?: string; variant?: string; num: number; out: string },
): Promise<void> {
  using set = await PairSet.open(folder, { only: shard.shard });
  const spread = Array.from({ length: Math.min(256, set.length) }, (_, i) => Math.floor((i * set.length) / Math.min(256, set.length))); // prettier-ignore
  const { x0, x1 } = set.batch(spread);
  const channels = set.shape[2];
  console.log(`statistics of ${spread.length} pairs of ${shard.shard}`);
  const rows = [x1, x0].flatMap((z, which) =>
    channelStatistics(z, channels).map(({ mean, deviation, min, max }, c) => [
      `${which ? 'noise' : 'latents'} ${c}`,
      ...[mean, deviation, min, max].map((value) => value.toFixed(3)),
    ]),
  );
  for (const row of show.table([['channel', 'mean', 'deviation', 'least', 'most'], ...rows])) console.log(`  ${row}`);

  const path = await teacherPath(folder, shard, model, variant);
  if (path === undefined) {
    console.log(`no picture: ${shard.model} is not here; name a model with the same autoencoder: --model`);
    return;
  }
  await init();
  try {
    using vae = await openAutoencoder(path, { variant });
    const shown = spread.length > num ? Array.from({ length: num }, (_, i) => i) : spread;
    const latents = set.batch(shown).x1;
    const { images, width, height } = await decodeLatents(vae, latents, [shown.length, ...set.shape]);
    const cells = imagesFromFloats(images, width, height).map((image, i) => ({
      image,
      caption: `${set.prompts[shown[i]]}, seed ${set.seeds[shown[i]]}`,
    }));
    const title = `${shard.shard}: ${shown.length} of ${set.length} pairs`;
    const subtitle = `${shard.scheduler}, ${shard.steps} steps, guidance ${shard.guidance_scale}`;
    await writeAtomic(out, await drawGrid(cells, { title, subtitle }));
    console.log(out);
  } finally {
    currentGpu().destroy();
  }
}

/** Where the teacher lies: as it was named, or from the folder of the pairs. The hub is not asked unless --model says so. */
async function teacherPath(
  folder: string,
  shard: PairShard,
  model?: string,
  variant?: string,
): Promise<string | undefined> {
  if (model !== undefined) return modelPath(model, { variant });
  for (const path of [shard.model, join(folder, shard.model)]) if (await exists(path)) return path;
  return undefined;
}
