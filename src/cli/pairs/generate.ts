import { mkdir, statfs } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { latentSize } from '../../flow/latents.ts';
import type { LatentShape } from '../../flow/latents.ts';
import type { Pipeline } from '../../flow/pipeline.ts';
import { networkNames } from '../../flow/pipelines/options.ts';
import { networksIn } from '../../flow/recipe/model-folder.ts';
import { openModel } from '../../flow/recipe/open-model.ts';
import { generatePairs } from '../../flow/recipe/pairs/generate.ts';
import type { PairProgress } from '../../flow/recipe/pairs/request.ts';
import { readPrompts } from '../../flow/recipe/pairs/prompts.ts';
import { teacherHash } from '../../flow/recipe/pairs/teacher.ts';
import { currentGpu, init } from '../../tensor/index.ts';
import { exists } from '../../tensor/io/files-node.ts';
import { arrayTask } from '../array-task.ts';
import { choice, command, flag, float, int, required, Stopped, text, UsageError } from '../command.ts';
import { checkModel } from '../fit.ts';
import { modelHelp, modelPath } from '../model-path.ts';
import { clock, StatusLine } from '../status-line.ts';
import * as show from '../units.ts';

export const generate = command(
  'pairs generate',
  'noise and what a teacher makes of it, in shards; goes on where it was stopped',
  {
    model: text(undefined, `the teacher, ${modelHelp} (the one that ships)`),
    variant: text(undefined, 'which of several sets of weights to take, such as fp16'),
    dtype: choice('f32', ['f32', 'f16'], 'how its weights and activations are stored; f16 takes half the memory'),
    tokenizer: text(undefined, 'folder with vocab.json and merges.txt, for a file that comes without'),
    rectified_flow: flag(false, 'the network predicts the velocity of a flow, and its file does not say so'),
    which: choice(undefined, networkNames, 'which of its networks (unet_teacher where there is one)'),
    prompts: text(required, 'a text file with a line each, .jsonl, .csv, or an image folder with captions'),
    caption_column: text('text', 'column of a .jsonl, .csv or image folder with the prompt'),
    max_train_samples: int(undefined, 'pairs of the whole set; prompts come again, with other noise, when there are fewer (one for each)', { min: 1 }), // prettier-ignore
    output_dir: text('pairs', 'folder for the shards and their manifest.jsonl'),
    scheduler: text(undefined, 'of a diffusion dpm++, ddim, pndm, euler; of a flow euler, heun, adams-bashforth, rk45 (dpm++, adams-bashforth)'), // prettier-ignore
    steps: int(25, 'steps of the scheduler', { min: 1 }),
    guidance_scale: float(undefined, 'how much to follow the text (5 for a diffusion, 1.5 for a flow)', { min: 0 }),
    resolution: int(undefined, 'pixels on a side (what the model was trained on)', { min: 8 }),
    seed: int(0, 'of the first pair; the others count on', { min: 0 }),
    batch_size: int(4, 'pairs at once', { min: 1 }),
    shard_size: int(1024, 'pairs in a shard', { min: 1 }),
    latents_dtype: choice('f16', ['f16', 'f32'], 'how latents are written'),
    store_noise: flag(false, 'write the noise too, for readers that cannot draw it from its seed'),
    max_latent_rms: float(undefined, 'leave out pairs whose latents have a larger root mean square', { min: 0 }),
    min_latent_rms: float(undefined, 'or a smaller one', { min: 0 }),
    shard_index: int(undefined, "which of --num_shards workers this is, from 0 (Slurm's or Kubernetes' index)", { min: 0 }), // prettier-ignore
    num_shards: int(undefined, "workers that share the set: each makes every so-many-th shard (Slurm's count)", { min: 1 }), // prettier-ignore
    max_minutes: float(undefined, 'end the set after so many minutes, with what there is', { min: 0 }),
  },
  async (options) => {
    const worker = arrayTask(options);
    const prompts = await readPrompts(options.prompts, { captionColumn: options.caption_column });
    const { variant, dtype, tokenizer, batch_size: batchSize } = options;
    const path = await modelPath(options.model, { variant });
    const which = options.which ?? ((await networksIn(path)).includes('unet_teacher') ? 'unet_teacher' : 'unet');
    const gpu = await init();
    const line = new StatusLine();
    const stopping = new AbortController();
    const stop = (signal: NodeJS.Signals) => {
      if (stopping.signal.aborted) process.exit(130);
      line.print(`${signal}: finishing this batch; again to quit at once`);
      stopping.abort(signal);
    };
    process.on('SIGINT', stop);
    process.on('SIGTERM', stop);
    try {
      const { resolution, guidance_scale: guidanceScale } = options;
      const size = { height: resolution, width: resolution };
      const plan = { batchSize, count: batchSize, dtype, ...size, guidanceScale: guidanceScale ?? 5 };
      const opening = { rectifiedFlow: options.rectified_flow || undefined, safetyChecker: false };
      await checkModel(gpu, path, plan, which, opening);
      const pipeline = await openModel(path, { networks: [which], variant, dtype, tokenizer, ...opening });
      const folder = options.output_dir;
      await mkdir(folder, { recursive: true });
      const teacher = {
        model: options.model ?? path,
        sha256: await teacherHash(path, which, { variant, cache: `${folder}/teacher.txt` }),
      };
      const shape = shapeOf(pipeline, resolution);
      const count = options.max_train_samples ?? prompts.length;
      line.print(await announce(options, shape, count, worker));
      const result = await generatePairs(
        folder,
        {
          ...{ pipeline, which, teacher, prompts, count, shape, worker, batchSize, guidanceScale },
          scheduler: options.scheduler,
          steps: options.steps,
          firstSeed: options.seed,
          shardSize: options.shard_size,
          latentsDtype: options.latents_dtype,
          storeNoise: options.store_noise,
          maxLatentRms: options.max_latent_rms,
          minLatentRms: options.min_latent_rms,
          minutes: options.max_minutes,
        },
        {
          say: (words) => line.print(words),
          progress: (progress) => line.update(describe(progress), progress.done === progress.total),
          signal: stopping.signal,
        },
      );
      pipeline.dispose();
      const left = result.skipped ? `, ${result.skipped} left out` : '';
      line.print(`${folder}: ${result.samples} pairs${left}${result.complete ? '' : ` of ${count} so far`}`);
      if (!result.finished) throw new Stopped('stopped; the same command goes on from there');
    } finally {
      process.off('SIGINT', stop);
      process.off('SIGTERM', stop);
      currentGpu().destroy();
    }
  },
);

function shapeOf({ latentShape, parts: { vae } }: Pipeline, resolution?: number): LatentShape {
  if (resolution === undefined) return latentShape;
  const [, , channels] = latentShape;
  const side = resolution / vae.factor;
  if (Number.isInteger(side)) return [side, side, channels];
  throw new UsageError(`--resolution must be a multiple of ${vae.factor} with this model, not ${resolution}`);
}

/** What is going to be made, and whether the disk can hold it. */
async function announce(
  { shard_size, output_dir, latents_dtype, store_noise }: { shard_size: number; output_dir: string; latents_dtype: 'f16' | 'f32'; store_noise: boolean }, // prettier-ignore
  shape: LatentShape,
  count: number,
  worker: { index: number; count: number },
): Promise<string> {
  const each = latentSize(shape) * ((latents_dtype === 'f16' ? 2 : 4) + (store_noise ? 4 : 0)) + 3072;
  const needed = each * count;
  const shards = Math.ceil(count / shard_size);
  const all = `${count} pair${count > 1 ? 's' : ''} in ${shards} shard${shards > 1 ? 's' : ''}, about ${show.bytes(needed)}`;
  const mine = worker.count > 1 ? `; this is worker ${worker.index} of ${worker.count}` : '';
  const place = (await exists(output_dir)) ? output_dir : dirname(resolve(output_dir));
  const free = await statfs(place).then(
    ({ bavail, bsize }) => bavail * bsize,
    () => Infinity,
  );
  return `${all}${mine}${needed > free ? `\nnote: the disk of ${output_dir} has ${show.bytes(free)} free` : ''}`;
}

const describe = ({ done, total, skipped, shard, rate, remaining }: PairProgress): string =>
  `${shard}  ${done} of ${total}${skipped ? `, ${skipped} left out` : ''}  ${rate.toPrecision(3)} pairs/s  ${clock(remaining)} left`;
