import { defined } from '../../tensor/defined.ts';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { currentGpu, init } from '../../tensor/index.ts';
import { writeAtomic } from '../../tensor/io/files-node.ts';
import type { Pipeline } from '../../flow/pipeline.ts';
import { networkNames } from '../../flow/pipelines/options.ts';
import type { NetworkName, SampleResult } from '../../flow/pipelines/options.ts';
import { networksIn, readJson } from '../../flow/recipe/model-folder.ts';
import { readOutline } from '../../flow/recipe/model-outline.ts';
import { openModel } from '../../flow/recipe/open-model.ts';
import { choice, command, float, int, positional, repeated, text, UsageError } from '../command.ts';
import { checkModel } from '../fit.ts';
import { modelHelp, modelPath } from '../model-path.ts';
import { imageFromFloats } from '../pictures/image.ts';
import type { RgbImage } from '../pictures/image.ts';
import { drawRace, pace } from '../pictures/race.ts';
import { drawSheet } from '../pictures/sheet.ts';
import { safetyOption, wantsSafetyChecker } from '../safety.ts';
import * as show from '../units.ts';
import { nameOf, slug } from './sample.ts';

export default command(
  'compare',
  'the same noise through a many-step and a one-step model: pictures side by side, an animation, and where the time goes',
  {
    prompt: positional(repeated(text(undefined, 'what to paint, in quotes; several for several rows'))),
    model: text(undefined, `on the left, in many steps; ${modelHelp} (the one that ships)`),
    against: text(undefined, 'on the right, in one step: such as XCLIU/instaflow_0_9B_from_sd_1_5 (the same model)'),
    which: choice(undefined, networkNames, 'network on the left, of a model with several (its teacher)'),
    against_which: choice('unet', networkNames, 'network on the right (the distilled one)'),
    steps: int(undefined, 'steps on the left (25)', { min: 2 }),
    against_steps: int(1, 'steps on the right', { min: 1 }),
    guidance_scale: float(undefined, "guidance on the left (the model's own; 5 for Stable Diffusion)", { min: 0 }),
    scheduler: text(undefined, "scheduler on the left (the model's own; dpm++ for Stable Diffusion)"),
    seed: int(0, 'of the first image of each prompt', { min: 0 }),
    num: int(1, 'seeds for each prompt', { min: 1 }),
    height: int(undefined, "pixels (the model's own)", { min: 1 }),
    width: int(undefined, 'likewise', { min: 1 }),
    dtype: choice('f32', ['f32', 'f16'] as const, 'how weights and activations are kept'),
    variant: text(undefined, 'which of several sets of weights to take, such as fp16'),
    tokenizer: text(undefined, 'folder with vocab.json and merges.txt, for a file that comes without'),
    safety_checker: safetyOption,
    out: text('out', 'folder for the pictures'),
  },
  async (options) => {
    const { prompt: words, out, seed, num } = options;
    if (!words?.length || words.some((word) => word.trim() === ''))
      throw new Error('the prompt is empty\n  say what to paint, such as "red apple"');
    const sides = await sidesOf(options);
    const gpu = await init();
    try {
      const rows = words.flatMap((prompt) => Array.from({ length: num }, (_, i) => ({ prompt, seed: seed + i })));
      const { height, width, dtype, variant, tokenizer } = options;
      for (const { path, way, rectifiedFlow, safetyChecker } of sides)
        await checkModel(gpu, path, { ...way, height, width, dtype }, way.which, { rectifiedFlow, safetyChecker });
      const drawn: Drawn[][] = [];
      for (const side of sides) {
        const { path, way, rectifiedFlow, safetyChecker } = side;
        const opening = { networks: [way.which], dtype, variant, tokenizer, rectifiedFlow, safetyChecker };
        const pipeline = await openModel(path, opening);
        drawn.push([]);
        for (const row of rows) drawn.at(-1)!.push(await draw(pipeline, { ...way, ...row, height, width }));
        pipeline.dispose();
      }
      await mkdir(out, { recursive: true });
      const name = join(out, `${slug(words.join(' '))}-${seed}-compare`);
      const titles = sides.map(({ name }, i) => `${name}, ${stepsOf(drawn[i][0].result)}`);
      rows.forEach((row, r) =>
        print(
          row,
          titles,
          drawn.map((list) => list[r].result),
        ),
      );
      console.log('each timed in its second run: the first compiles kernels');
      const { attribution } = (await readJson(join(sides[0].path, 'recipe.json')).catch(() => ({}))) as Recipe;
      const credit = attribution ? `. Trained on ${attribution}` : '';
      const footer = `On ${gpu.capabilities.name}${credit}`;
      const columns = titles.map((title, i) => ({ title, note: wayOf(drawn[i][0].result) }));
      const titleOf = ({ prompt, seed }: Row) => `${prompt}, seed ${seed}`;
      const common = {
        title: rows.length > 1 ? 'The same noise, two models' : titleOf(rows[0]),
        cellSize: rows.length > 2 ? 160 : 256,
        columns,
      };
      const rowTitle = (row: Row) => (rows.length > 1 ? titleOf(row) : undefined);
      const sheet = await drawSheet({
        ...common,
        footer,
        rows: rows.map((row, r) => ({
          title: rowTitle(row),
          cells: drawn.map((list) => ({ image: list[r].image, caption: timesOf(list[r].result) })),
        })),
      });
      await writeAtomic(`${name}.png`, sheet);
      console.log(`${name}.png`);
      const slowest = Math.max(...drawn.flat().map(({ result }) => result.timings.total));
      const race = await drawRace({
        ...common,
        footer: `Time runs ${pace(slowest)}. ${footer}`,
        rows: rows.map((row, r) => ({ title: rowTitle(row), courses: drawn.map((list) => courseOf(list[r])) })),
      });
      await writeAtomic(`${name}.webp`, race);
      console.log(`${name}.webp`);
    } finally {
      currentGpu().destroy();
    }
  },
);

interface Recipe {
  attribution?: string;
}

interface Row {
  prompt: string;
  seed: number;
}

/** How one side is sampled; what is undefined is the model's own. */
interface Way {
  which: NetworkName;
  steps?: number;
  guidanceScale?: number;
  scheduler?: string;
}

interface Side {
  path: string;
  name: string;
  way: Way;
  rectifiedFlow?: boolean;
  safetyChecker: boolean;
}

interface Asked {
  model?: string;
  against?: string;
  which?: NetworkName;
  against_which: NetworkName;
  steps?: number;
  against_steps: number;
  guidance_scale?: number;
  scheduler?: string;
  variant?: string;
  safety_checker: 'auto' | 'on' | 'off';
}

/** The two models, and how each is sampled. */
async function sidesOf(asked: Asked): Promise<[Side, Side]> {
  const { variant, safety_checker } = asked;
  const fetching = { variant, safetyChecker: safety_checker === 'on' };
  const left = await modelPath(asked.model, fetching);
  const has = await networksIn(left);
  if (asked.against === undefined && !has.includes('unet_teacher') && asked.which === undefined)
    throw new UsageError(
      `${asked.model}: has one network, and nothing to compare it with\n` +
        '  name a one-step model: --against XCLIU/instaflow_0_9B_from_sd_1_5',
    );
  const right = asked.against === undefined ? left : await modelPath(asked.against, fetching);
  const leftChecks = await wantsSafetyChecker(left, safety_checker);
  const rightChecks = right === left ? leftChecks : await wantsSafetyChecker(right, safety_checker);
  const which = asked.which ?? (has.includes('unet_teacher') ? 'unet_teacher' : 'unet');
  const nameOfSide = (model: string, network: NetworkName, several: boolean) =>
    `${nameOf(model)}${several ? `/${network}` : ''}`;
  const own = (await readOutline(left, which).catch(() => undefined))?.scheduler?._class_name ?? 'RectifiedFlow';
  const shown = own === 'RectifiedFlow' ? {} : { steps: 25, guidanceScale: 5, scheduler: 'dpm++' };
  const given = { steps: asked.steps, guidanceScale: asked.guidance_scale, scheduler: asked.scheduler };
  const several = (await networksIn(right)).length > 1;
  return [
    {
      path: left,
      name: nameOfSide(asked.model ?? left, which, has.length > 1),
      way: { which, ...shown, ...defined(given) },
      safetyChecker: leftChecks,
    },
    {
      path: right,
      name: nameOfSide(asked.against ?? asked.model ?? right, asked.against_which, several),
      way: { which: asked.against_which, steps: asked.against_steps, guidanceScale: 1 },
      // One step is a step along a flow, whatever the files say.
      rectifiedFlow: true,
      safetyChecker: rightChecks,
    },
  ];
}

/** A picture, what was believed in on the way, and the times of the second run. */
interface Drawn {
  image: RgbImage;
  previews: RgbImage[];
  result: SampleResult;
}

async function draw(
  pipeline: Pipeline,
  { prompt, seed, ...way }: Way & Row & { height?: number; width?: number },
): Promise<Drawn> {
  const asked = { prompts: [prompt], seeds: [seed], ...way };
  const seen: Float32Array[] = [];
  await pipeline.sample({ ...asked, onPreview: (images) => void seen.push(images) });
  const result = await pipeline.sample(asked);
  for (const warning of result.warnings) console.error(`note: ${warning}`);
  const picture = (numbers: Float32Array) => imageFromFloats(numbers, result.width, result.height);
  return { image: picture(result.images), previews: seen.map(picture), result };
}

/** Steps of one size take one time each. */
function courseOf({ image, previews, result }: Drawn) {
  const { text, encoder, network, total } = result.timings;
  const on = previews.length > 1 ? previews : [];
  const stages = on.map((preview, i) => ({
    at: text + encoder + (network * (i + 1)) / on.length,
    image: preview,
    caption: `step ${i + 1} of ${on.length}`,
  }));
  return { stages: [...stages, { at: total, image, caption: `done in ${show.seconds(total)}` }] };
}

const timesOf = ({ timings: { text, network, decoder, total } }: SampleResult): string =>
  `${show.seconds(total)}: text ${show.seconds(text)}, U-Net ${show.seconds(network)}, decoder ${show.seconds(decoder)}`;

const stepsOf = ({ steps }: SampleResult): string => `${steps} step${steps > 1 ? 's' : ''}`;

const wayOf = ({ sampler, guidanceScale }: SampleResult): string => `${sampler}, guidance ${guidanceScale}`;

/** A line for each model, one column for each part. */
function print({ prompt, seed }: Row, titles: string[], results: SampleResult[]): void {
  const parts = ['text', 'network', 'decoder', 'total'] as const;
  const [slow, fast] = results.map(({ timings }) => timings);
  const rows = [
    [`"${prompt}", seed ${seed}`, 'text encoder', 'U-Net', 'decoder', 'all'],
    ...results.map(({ timings }, i) => [titles[i], ...parts.map((part) => show.seconds(timings[part]))]),
    ['ratio', ...parts.map((part) => (slow[part] / fast[part]).toPrecision(3))],
  ];
  for (const line of show.table(rows)) console.log(line);
}
