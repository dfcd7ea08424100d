/** Networks at full size, with weights from the rule: one at a time, freed before the next. */
import type { DType } from '../../kernels/index.ts';
import { add, clamp, mse, mul, noGrad, scope, type Tensor } from '../../tensor/index.ts';
import { AutoencoderKL, CLIPTextModel, UNet2DConditionModel } from '../../nn/index.ts';
import { timestepOf } from '../../flow/rectified-flow.ts';
import { euler } from '../../flow/solvers.ts';
import { statsChecks } from './compare.ts';
import {
  alone,
  halfTolerance,
  idsOf,
  input,
  inputChecks,
  outputChecks,
  sliceChecks,
  whole,
  withFirstWrongBlock,
  type File,
} from './full-checks.ts';
import { gradientChecks, inputGradient, loadRule, theirs } from './networks-common.ts';
import { Skip, tolerance, type Check, type GoldenCase, type Runner } from './runner.ts';

/** What each kind of case gets. */
interface Given {
  file: File;
  /** The side file: statistics of blocks and gradients. */
  side: Record<string, any>;
  dtype: DType;
  limit: number;
}

/** In half precision only what comes out is compared: within three times what rounding the weights costs. */
export const runFull: Runner = async (c, context) => {
  const run = kinds[c.kind];
  if (!run) throw new Skip(`no runner for ${c.kind}`);
  await context.gpu();
  const { dtype } = context;
  const limit = dtype === 'f16' ? halfTolerance(c, context.golden.cases) : tolerance(c, 'out');
  const side = c.json ? await context.json(c.json) : {};
  return [...inputChecks(c), ...(await run(c, { file: await context.tensors(c), side, dtype, limit }))];
};

const kinds: Record<string, (c: GoldenCase, given: Given) => Promise<Check[]>> = {
  clip_full: runClip,
  unet_full: runUnet,
  unet_full_grad: runUnetGradients,
  vae_full_encode: runEncode,
  vae_full_decode: runDecode,
  e2e_instaflow_full: runInstaFlow,
};

async function runClip(c: GoldenCase, { file, side, limit, dtype }: Given): Promise<Check[]> {
  const projection = /WithProjection/.test(c.class);
  using model = await loadRule(() => new CLIPTextModel(c.config, { projection }), c.weights, dtype);
  const ids = idsOf(file);
  const { lastHiddenState, hiddenStates, pooled } = noGrad(() => {
    const output = model.forward(ids);
    return { ...output, pooled: model.pool(output.lastHiddenState, ids) };
  });
  const checks: Check[] = [];
  for (const [i, state] of hiddenStates.entries())
    checks.push(...statsChecks(`hidden_states.${i}`, await state.read(), side.hidden_states[i], limit));
  const outputs: Record<string, Tensor> = {
    last_hidden_state: lastHiddenState,
    penultimate: hiddenStates.at(-2)!,
    pooler_output: pooled,
  };
  if (projection) outputs.text_embeds = noGrad(() => model.project(pooled));
  for (const [name, output] of Object.entries(outputs))
    checks.push(...outputChecks(name, await theirs(output), c, file, limit));
  return checks;
}

async function runUnet(c: GoldenCase, { file, side, limit, dtype }: Given): Promise<Check[]> {
  using model = await loadRule(() => new UNet2DConditionModel(c.config), c.weights, dtype);
  const [sample, text] = [input(c, 'sample', { dtype }), input(c, 'encoder_hidden_states', { dtype })];
  const added = c.inputs.text_embeds && {
    textEmbeds: input(c, 'text_embeds', { dtype }),
    timeIds: c.inputs.time_ids.literal,
  };
  const forward = () => model.forward(sample, c.inputs.timestep.literal, text, added);
  const out = await theirs(noGrad(() => scope(forward)));
  const checks = [...outputChecks('out', out, c, file, limit), whole('sample', out, file, limit)];
  return withFirstWrongBlock(checks, model, side.acts, limit, forward);
}

/** In half precision only what comes out is compared. */
async function runUnetGradients(c: GoldenCase, { file, side, limit, dtype }: Given): Promise<Check[]> {
  using model = await loadRule(() => new UNet2DConditionModel(c.config), c.weights, dtype);
  const half = dtype === 'f16';
  model.requiresGrad(!half);
  const options = { dtype, requiresGrad: !half };
  const sample = input(c, 'sample', options),
    text = input(c, 'encoder_hidden_states', options);
  const { out, loss } = scope(() => {
    const out = model.forward(sample, c.inputs.timestep.literal, text);
    const loss = mse(out, input(c, 'target', { dtype }));
    if (!half) loss.backward();
    return { out, loss };
  });
  const checks = [
    whole('sample', await theirs(out), file, limit),
    { name: 'loss', got: [await loss.item()], want: [c.loss], tolerance: limit },
  ];
  if (half) return checks;
  const gradLimit = tolerance(c, 'grad');
  checks.push(...(await inputGradient('sample', sample, c, file, gradLimit)));
  for (const [name, t] of Object.entries({ sample, encoder_hidden_states: text })) {
    checks.push(...statsChecks(name, await theirs(t.grad!), side.grad_in[name], gradLimit, 1e-3 * c.grad_abs_scale));
  }
  return [...checks, ...(await gradientChecks(model, c, file, side.grads, gradLimit))];
}

async function runEncode(c: GoldenCase, { file, side, limit, dtype }: Given): Promise<Check[]> {
  using model = await loadRule(() => new AutoencoderKL(c.config), c.weights, dtype);
  const image = input(c, 'image', { dtype });
  const forward = () => model.moments(image);
  const moments = await theirs(noGrad(() => scope(forward)));
  const checks = [...outputChecks('out', moments, c, file, limit), whole('moments', moments, file, limit)];
  return withFirstWrongBlock(checks, model, side.acts, limit, forward);
}

async function runDecode(c: GoldenCase, { file, side, limit, dtype }: Given): Promise<Check[]> {
  using model = await loadRule(() => new AutoencoderKL(c.config), c.weights, dtype);
  const z = input(c, 'z', { dtype });
  const forward = () => model.decode(z);
  const image = await theirs(noGrad(() => scope(forward)));
  const checks = [
    ...outputChecks('out', image, c, file, limit),
    ...sliceChecks('out', image, file, c.out_stats.out.shape, limit),
  ];
  return withFirstWrongBlock(checks, model, side.acts, limit, forward);
}

/** Token ids → one Euler step → image, as InstaFlow's pipeline does it. */
async function runInstaFlow(c: GoldenCase, { file, dtype, limit }: Given): Promise<Check[]> {
  const weights = (name: string) => ({ ...c.weights, seed: c.weights.seeds[name] });
  const make = {
    clip: () => loadRule(() => new CLIPTextModel(c.config.text_encoder), weights('text_encoder'), dtype),
    unet: () => loadRule(() => new UNet2DConditionModel(c.config.unet), weights('unet'), dtype),
    vae: () => loadRule(() => new AutoencoderKL(c.config.vae), weights('vae'), dtype),
  };
  const text = await alone(make.clip, (clip) => clip.forward(idsOf(file)).lastHiddenState);
  const noise = input(c, 'latents', { dtype });
  const latents = await alone(make.unet, (unet) =>
    euler((z, t) => unet.forward(z, timestepOf(t), text), noise, c.steps),
  );
  const image = await alone(make.vae, (vae) => {
    const decoded = vae.decode(mul(latents, 1 / vae.config.scaling_factor));
    return clamp(add(mul(decoded, 0.5), 0.5), { min: 0, max: 1 });
  });
  const checks: Check[] = [];
  for (const [name, output] of Object.entries({ text, latents, image }))
    checks.push(...outputChecks(name, await theirs(output), c, file, limit));
  return [...checks, ...sliceChecks('out.image', await theirs(image), file, c.out_stats.image.shape, limit)];
}
