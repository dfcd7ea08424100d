/** Whole pipelines with weights from the rule: prompt → tokens → text encoder → steps → image, every step compared. */
import { readFile } from 'node:fs/promises';
import { AutoencoderKL, CLIPTextModel, UNet2DConditionModel } from '../../nn/index.ts';
import { ClipTokenizer } from '../../nn/tokenizer.ts';
import { Pipeline } from '../../flow/pipeline.ts';
import { NoiseSource } from '../../flow/pipelines/noise.ts';
import type { SampleResult, SampleStep } from '../../flow/pipelines/options.ts';
import { RefinerPipeline } from '../../flow/pipelines/refiner.ts';
import { tensor } from '../../tensor/index.ts';
import type { HostTensor } from '../../tensor/io/safetensors.ts';
import { channelsLast } from './layout.ts';
import { loadRule, theirs } from './networks-common.ts';
import { tolerance, type Check, type Context, type GoldenCase, type Runner } from './runner.ts';

type File = Record<string, HostTensor>;

export const runPipe: Runner = async (c, context) => {
  await context.gpu();
  const file = await context.tensors(c);
  const tokenizer = await syntheticTokenizer(context, c.tokenizer_pad);
  const limit = tolerance(c);
  const trace: ArrayLike<number>[] = [];
  const onStep = async ({ latents }: SampleStep) => void trace.push(await theirs(latents));
  const prompts = Array<string>(c.batch).fill(c.prompt);
  const shared = {
    prompts,
    seeds: 0,
    steps: c.steps,
    guidanceScale: c.guidance_scale,
    negativePrompt: c.negative_prompt ?? '',
    height: c.height,
    width: c.width,
    batchSize: c.batch,
    onStep,
  };
  const checks: Check[] = [c.prompt, c.negative_prompt ?? ''].map((text, i) => {
    const want = file['in.input_ids'];
    const row = want.data.subarray(i * 77, (i + 1) * 77);
    return { name: `ids of ${JSON.stringify(text)}`, got: tokenizer.encode(text).ids, want: row, tolerance: 0 };
  });
  const result = await withDrawn(c, file, () =>
    c.text_encoder_2_config ? refine(c, file, tokenizer, shared) : sample(c, file, tokenizer, shared),
  );
  const [steps] = file['out.trace'].shape;
  const size = file['out.trace'].data.length / steps;
  // diffusers is silent about the steps by which a scheduler warms up: PNDM asks the network once more than told.
  trace.slice(-steps).forEach((got, i) => {
    const want = file['out.trace'].data.subarray(i * size, (i + 1) * size);
    checks.push({ name: `latents after step ${i + 1}`, got, want, tolerance: limit });
  });
  const [, , h, w] = file['out.latents'].shape;
  const latents = await theirs(tensor(result.latents, [c.batch, h, w, 4]));
  checks.push({ name: 'latents', got: latents, want: file['out.latents'].data, tolerance: limit });
  const image = result.images.map((v) => Math.min(1, Math.max(0, v / 2 + 0.5)));
  checks.push({ name: 'image', got: image, want: file['out.image'].data, tolerance: limit });
  return checks;
};

interface Shared {
  prompts: string[];
  seeds: number;
  steps: number;
  guidanceScale: number;
  negativePrompt: string;
  height: number;
  width: number;
  batchSize: number;
  onStep(report: SampleStep): Promise<void>;
}

async function sample(c: GoldenCase, file: File, tokenizer: ClipTokenizer, shared: Shared): Promise<SampleResult> {
  const rule = (part: string) => ({ ...c.weights, seed: c.weights.seeds[part] });
  const pipeline = new Pipeline({
    tokenizer,
    textEncoder: await loadRule(() => new CLIPTextModel(c.text_encoder_config), rule('text_encoder')),
    vae: await loadRule(() => new AutoencoderKL(c.vae_config), rule('vae')),
    networks: { unet: await loadRule(() => new UNet2DConditionModel(c.unet_config), rule('unet')) },
    defaults: {},
    scheduler: c.scheduler ? schedulerConfig(c) : { _class_name: 'RectifiedFlow' },
  });
  const begin = file['in.image']
    ? { image: channelsLast(file['in.image']).data, strength: c.strength }
    : { noise: channelsLast(file['in.latents']).data };
  try {
    return await pipeline.sample({ ...shared, ...begin });
  } finally {
    pipeline.dispose();
  }
}

async function refine(c: GoldenCase, file: File, tokenizer: ClipTokenizer, shared: Shared): Promise<SampleResult> {
  const rule = (part: string) => ({ ...c.weights, seed: c.weights.seeds[part] });
  const encoder = () => new CLIPTextModel(c.text_encoder_2_config, { projection: true });
  const pipeline = new RefinerPipeline({
    tokenizer,
    textEncoder: await loadRule(encoder, rule('text_encoder_2')),
    vae: await loadRule(() => new AutoencoderKL(c.vae_config), rule('vae')),
    network: await loadRule(() => new UNet2DConditionModel(c.unet_config), rule('unet')),
    scheduler: schedulerConfig(c),
  });
  const image = channelsLast(file['in.image']).data;
  try {
    return await pipeline.refine({
      ...shared,
      ...(c.image_is_latents ? { latents: image } : { images: image }),
      strength: c.strength,
      denoisingStart: c.denoising_start ?? undefined,
      aestheticScore: c.aesthetic_score,
      negativeAestheticScore: c.negative_aesthetic_score,
    });
  } finally {
    pipeline.dispose();
  }
}

const classes: Record<string, string> = {
  ddim: 'DDIMScheduler',
  pndm: 'PNDMScheduler',
  dpm: 'DPMSolverMultistepScheduler',
  euler: 'EulerDiscreteScheduler',
};

const schedulerConfig = (c: GoldenCase) => ({ _class_name: classes[c.scheduler], ...c.scheduler_config });

/** Let pipelines draw the noise that the case was made with, in the order in which it was drawn. */
async function withDrawn<T>(c: GoldenCase, file: File, work: () => Promise<T>): Promise<T> {
  const drawn = Object.keys(file)
    .filter((name) => name.startsWith('in.randn'))
    .sort();
  const own = NoiseSource.prototype.next;
  let at = 0;
  NoiseSource.prototype.next = () => {
    const noise = file[drawn[at++]];
    if (!noise) throw new Error(`noise was drawn ${at} times, the case has ${drawn.length}`);
    const { data, shape } = channelsLast(noise);
    return tensor(data, shape);
  };
  try {
    const result = await work();
    if (at !== drawn.length) throw new Error(`noise was drawn ${at} times, the case has ${drawn.length}`);
    return result;
  } finally {
    NoiseSource.prototype.next = own;
  }
}

async function syntheticTokenizer(context: Context, pad?: string): Promise<ClipTokenizer> {
  const text = (name: string) => readFile(context.path(`tok/synthetic/${name}`), 'utf8');
  return new ClipTokenizer({
    vocab: await text('vocab.json'),
    merges: await text('merges.txt'),
    ...(pad ? { config: { pad_token: pad } } : {}),
  });
}
