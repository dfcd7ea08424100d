import { mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { currentGpu, init } from '../../tensor/index.ts';
import { exists, writeAtomic } from '../../tensor/io/files-node.ts';
import type { CaptionedImages } from '../../flow/data/captioned-images.ts';
import type { Evaluation, Measured } from '../../flow/metrics/evaluation.ts';
import type { Pipeline } from '../../flow/pipeline.ts';
import { evaluateModel } from '../../flow/recipe/evaluate-model.ts';
import { describeRow, evaluationSheet, titleOf } from '../../flow/recipe/evaluation-data.ts';
import { featureNetworkNames, openClipScore, openFeatureNetwork } from '../../flow/recipe/metric-networks.ts';
import { networksIn, readJson, writeJson } from '../../flow/recipe/model-folder.ts';
import { openLpips } from '../../flow/recipe/open-lpips.ts';
import { openModel } from '../../flow/recipe/open-model.ts';
import { preset } from '../../flow/recipe/recipe.ts';
import { loadData } from '../../flow/recipe/recipe-data.ts';
import { choice, command, flag, float, int, positional, repeated, text, UsageError } from '../command.ts';
import { modelHelp, modelPath } from '../model-path.ts';
import { drawEvaluation } from '../pictures/evaluation.ts';
import * as show from '../units.ts';
import { nameOf } from './sample.ts';

export default command(
  'eval',
  'how good a model is: straightness, few steps against many, Fréchet distance, captions; JSON and a picture',
  {
    model: positional(text(undefined, `${modelHelp} (the one that ships)`)),
    train_data_dir: text(undefined, 'folder of real images with metadata.jsonl (those that the model was trained on)'),
    image_column: text('image', 'column of the metadata with the image file'),
    caption_column: text('text', 'column of the metadata with the caption'),
    max_train_samples: int(undefined, 'use only so many real images', { min: 2 }),
    num: int(256, 'images of each network and number of steps', { min: 2 }),
    steps: text('1,2,4,8,25', 'numbers of Euler steps, with commas between'),
    guidance_scale: float(undefined, "guidance of the teacher, or of the only network (the model's own)", { min: 0 }),
    seed: int(undefined, "of the choice of prompts (the recipe's)", { min: 0 }),
    feature_network: choice('small', featureNetworkNames, 'whose vectors the Fréchet distance is of'),
    feature_weights: text(undefined, 'its weights: a folder of CLIP, a file of pytorch-fid'),
    clip_model: text(undefined, 'folder of CLIP, with its tokenizer: how well images fit their prompts'),
    lpips_model: repeated(text(undefined, 'weights of LPIPS, in one file or two: how near images are to the teacher')),
    batch_size: int(64, 'images at a time', { min: 1 }),
    variant: text(undefined, 'which of several sets of weights to take, such as fp16'),
    out: text('out/eval', 'folder for metrics.json and sheet.png'),
    json: flag(false, 'print metrics.json instead of a table'),
  },
  async (options) => {
    const steps = parseSteps(options.steps);
    const { feature_network: wanted, feature_weights: weights, clip_model, lpips_model = [], json } = options;
    if ((wanted === 'small') !== (weights === undefined))
      throw new UsageError(
        wanted === 'small'
          ? '--feature_weights goes with --feature_network clip or inception: the small network has no weights'
          : `--feature_network ${wanted} wants --feature_weights, which do not come with this project`,
      );
    const path = await modelPath(options.model, { variant: options.variant });
    const note = (words: string) => console.error(words);
    await init();
    try {
      const networks = (await exists(join(path, 'model_index.json'))) ? await networksIn(path) : [];
      const pipeline = await openModel(path, {
        networks: networks.length ? networks : ['unet'],
        variant: options.variant,
      });
      const { real, source, ...draw } = await realImages(path, options, pipeline, note);
      const features = await openFeatureNetwork(wanted, weights);
      const clip = clip_model === undefined ? undefined : await openClipScore(clip_model);
      const lpips = lpips_model.length ? await openLpips(lpips_model) : undefined;
      if (features.distance === 'FID' && options.num < 5000)
        note(`note: the FID of ${options.num} images is higher than that of more; papers take 5000 or 30000`);
      const evaluation = await evaluateModel(pipeline, {
        real,
        features,
        clip,
        lpips,
        steps,
        ...draw,
        count: options.num,
        guidanceScale: options.guidance_scale,
        batchSize: options.batch_size,
        onRow: (row) => note(describeRow(row, features.distance)),
      });
      const name = nameOf(options.model ?? path);
      const metrics = {
        model: name,
        adapter: currentGpu().capabilities.name,
        count: options.num,
        realImages: { source, count: real.ids.length },
        frechetDistance: features.distance,
        ...(clip ? { clipScore: clip.name } : {}),
        ...(lpips ? { lpipsToTeacher: `LPIPS to ${evaluation.rows[0].network} in ${Math.max(...steps)} steps` } : {}),
        ...gainOf(evaluation.rows, Math.max(...steps)),
        rows: evaluation.rows,
      };
      await mkdir(options.out, { recursive: true });
      await writeJson(join(options.out, 'metrics.json'), metrics);
      const sheet = evaluationSheet(evaluation, name, `${features.distance}: ${summary(evaluation)}`);
      await writeAtomic(join(options.out, 'sheet.png'), await drawEvaluation(sheet, evaluation.rows));
      if (json) console.log(JSON.stringify(metrics, undefined, 2));
      else {
        for (const line of table(evaluation)) console.log(line);
        console.log(`${join(options.out, 'metrics.json')}\n${join(options.out, 'sheet.png')}`);
      }
    } finally {
      currentGpu().destroy();
    }
  },
);

/** '1,2,4' → [1, 2, 4] @throws UsageError naming all that are none */
function parseSteps(words: string): number[] {
  const given = words.split(',').map((word) => word.trim());
  const wrong = given.filter((word) => !/^[1-9]\d{0,3}$/.test(word));
  if (wrong.length)
    throw new UsageError(`--steps must be whole numbers from 1 to 9999, such as 1,4,25, not "${wrong.join('", "')}"`);
  return given.map(Number);
}

interface Given {
  train_data_dir?: string;
  image_column: string;
  caption_column: string;
  max_train_samples?: number;
  seed?: number;
}

/** Those of --train_data_dir, or those of the recipe that the model came from. */
async function realImages(path: string, given: Given, pipeline: Pipeline, onWarning: (words: string) => void) {
  const files = await readdir(path).catch(() => [] as string[]);
  const saved = files.includes('recipe.json') ? await readJson(join(path, 'recipe.json')) : undefined;
  const dir = given.train_data_dir;
  if (!saved?.data && dir === undefined)
    throw new UsageError(`${path}: does not say which images it was trained on; name some: --train_data_dir`);
  const { vae, latentShape } = { vae: pipeline.parts.vae, latentShape: pipeline.latentShape };
  const data = {
    ...preset('emoji').data,
    ...saved?.data,
    resolution: latentShape[0] * vae.factor,
    ...(dir ? { trainDataDir: dir, imageColumn: given.image_column, captionColumn: given.caption_column } : {}),
    ...(given.max_train_samples ? { maxTrainSamples: given.max_train_samples } : {}),
  };
  const seed: number = given.seed ?? saved?.seed ?? 0;
  const real: CaptionedImages = await loadData({ seed, data }, { onWarning });
  const source: string = data.trainDataDir ?? `OpenMoji, ${data.set}`;
  return { real, source, seed, specificCaption: data.specificCaption as number };
}

/** How much straighter reflow made the flow. */
function gainOf(rows: Measured[], steps: number): { straightnessGain?: number } {
  const ratio = (name: string) =>
    rows.find(({ network, steps: n }) => network === name && n === steps)?.straightness?.ratio;
  const [before, after] = [ratio('unet_teacher'), ratio('unet_reflow')];
  return before && after ? { straightnessGain: before / after } : {};
}

/** The teacher in many steps and the last network in few, for the sheet's second line. */
function summary({ rows }: Evaluation): string {
  const many = rows.filter(({ network }) => network === rows[0].network).at(-1)!;
  const few = rows.find(({ network }) => network === rows.at(-1)!.network)!;
  return [many, few].map((row) => `${titleOf(row)}: ${row.frechetDistance.toPrecision(3)}`).join(' · ');
}

function table({ rows, options }: Evaluation): string[] {
  const { features, clip, lpips } = options;
  const number = (value: number | undefined, digits = 4) => (value === undefined ? '' : value.toFixed(digits));
  const head = ['network', 'steps', 'guidance', 'distance', 'captions', 'S / cost', 'error', ...(clip ? ['CLIP'] : []), ...(lpips ? ['LPIPS'] : []), 's / image']; // prettier-ignore
  const body = rows.map((row) => [
    row.network,
    String(row.steps),
    String(row.guidanceScale),
    number(row.frechetDistance),
    `${(100 * row.captionAccuracy).toFixed(1)} %`,
    number(row.straightness?.ratio),
    number(row.fewStepError),
    ...(clip ? [number(row.clipScore)] : []),
    ...(lpips ? [number(row.lpipsToTeacher)] : []),
    row.secondsPerImage.toPrecision(3),
  ]);
  const most = Math.max(...rows.map(({ steps }) => steps));
  return [
    ...show.table([head, ...body]),
    `distance  ${features.distance}, to all real images`,
    `captions  images whose nearest real image carries the caption that was asked for`,
    `S / cost  straightness of the path over its length: 0 is a straight line`,
    `error     root mean square in the latents, from ${most} steps of the same network`,
    ...(clip ? [`CLIP      ${clip.name}: mean cosine of image and prompt`] : []),
    ...(lpips ? [`LPIPS     to what ${rows[0].network} makes of the same noise in ${most} steps`] : []),
  ];
}
