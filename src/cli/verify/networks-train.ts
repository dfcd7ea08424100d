import { add, currentGpu, mse, mul, noGrad, scope, sub, tensor, type Tensor } from '../../tensor/index.ts';
import { AdamW, EMA, UNet2DConditionModel, type Module } from '../../nn/index.ts';
import { statsChecks, type Stats } from './compare.ts';
import { loadRule, ours, ruleState, theirs } from './networks-common.ts';
import { affine } from './rule.ts';
import { tolerance, type Check, type GoldenCase, type Runner } from './runner.ts';

/** A few optimiser steps of a tiny U-Net: losses, gradient norms, how far the weights went. */
export const runTrain: Runner = async (c, context) => {
  await context.gpu();
  const file = await context.tensors(c);
  const { delta, ema_delta } = await context.json(c.json!);
  using model = await loadRule(() => new UNet2DConditionModel(c.config), c.weights);
  model.requiresGrad(true);
  const { lr, betas, eps, weight_decay: weightDecay, clip_grad_norm: maxGradNorm } = c.optimizer;
  using optimizer = new AdamW(model.namedParameters(), { lr, betas, eps, weightDecay, maxGradNorm });
  using ema = new EMA(model.namedParameters(), { decay: c.ema.decay });
  const checks: Check[] = inputChecks(c, file);

  for (let step = 0; step < c.steps; step++) {
    let loss = 0;
    for (let micro = 0; micro < c.accum; micro++) {
      loss += await scope(async () => {
        const { input, times, context: text, target } = batch(c, step * c.accum + micro);
        const part = mul(mse(model.forward(input, times, text), target), 1 / c.accum);
        part.backward();
        return part.item();
      });
    }
    optimizer.step();
    ema.step();
    const { gradNorm } = await optimizer.report();
    checks.push({ name: `loss ${step}`, got: [loss], want: [c.loss[step]], tolerance: c.tol.loss_rel_gpu });
    checks.push({
      name: `gradient norm ${step}`,
      got: [gradNorm],
      want: [c.grad_norm[step]],
      tolerance: c.tol.grad_norm_rel_gpu,
    });
  }
  const { noise, ctx } = data(c, 0);
  const out = noGrad(() => model.forward(ours(noise), 500, ours(ctx)));
  checks.push({
    name: 'final_forward',
    got: await theirs(out),
    want: file['out.final_forward'].data,
    tolerance: tolerance(c, 'final_forward'),
  });
  checks.push(...(await changes(model, c, delta)));
  ema.copyTo(model);
  checks.push(...(await changes(model, c, ema_delta)));
  await currentGpu().idle();
  return checks;
};

/** x1, noise, ctx, u of one micro-batch, by the rule. */
function data(c: GoldenCase, s: number) {
  const { shape, T, D, seed } = c.data_gen;
  const make = (name: string, shape: number[]) => {
    const { a, b } = c.data_gen[name === 'u' ? 'u' : 'x1/noise/ctx'];
    return {
      shape,
      data: affine(
        shape.reduce((n, d) => n * d, 1),
        seed,
        `step${s}.${name}`,
        a,
        b,
      ),
    };
  };
  return {
    x1: make('x1', shape),
    noise: make('noise', shape),
    ctx: make('ctx', [shape[0], T, D]),
    u: make('u', [shape[0]]),
  };
}

function batch(c: GoldenCase, s: number): { input: Tensor; times: number[]; context: Tensor; target: Tensor } {
  const { x1: image, noise: random, ctx, u: uniform } = data(c, s);
  const x1 = ours(image),
    noise = ours(random),
    context = ours(ctx),
    u = Array.from(uniform.data);
  const perImage = (values: number[]) => tensor(values, [values.length, 1, 1, 1]);
  if (c.mode === 'reflow') {
    const input = add(mul(x1, perImage(u)), mul(noise, perImage(u.map((t) => 1 - t))));
    return { input, times: u.map((t) => (1 - t) * 1000), context, target: sub(x1, noise) };
  }
  const times = u.map((t) => Math.min(999, Math.floor(1000 * t)));
  const signal = perImage(times.map((t) => Math.sqrt(alphasCumprod[t]))),
    sigma = perImage(times.map((t) => Math.sqrt(1 - alphasCumprod[t])));
  const input = add(mul(x1, signal), mul(noise, sigma));
  if (c.mode === 'eps') return { input, times, context, target: noise };
  if (c.mode === 'v') return { input, times, context, target: sub(mul(noise, signal), mul(x1, sigma)) };
  throw new Error(`unknown training mode ${c.mode}`);
}

/** Stable Diffusion's "scaled linear" schedule: ᾱ_t = Π (1 − β), √β from √0.00085 to √0.012. */
const alphasCumprod: number[] = [];
for (let t = 0, product = 1; t < 1000; t++) {
  const root = Math.sqrt(0.00085) + ((Math.sqrt(0.012) - Math.sqrt(0.00085)) * t) / 999;
  alphasCumprod.push((product *= 1 - root * root));
}

/** The first batch is also in the file: is the rule applied as it should be? */
function inputChecks(c: GoldenCase, file: Awaited<ReturnType<Parameters<Runner>[1]['tensors']>>): Check[] {
  const first = data(c, 0);
  return (['x1', 'noise', 'ctx', 'u'] as const).flatMap((name) => {
    const want = file[`in.step0.${name}`];
    return want ? [{ name: `in.step0.${name}`, got: first[name].data, want: want.data, tolerance: 0 }] : [];
  });
}

/** How far each weight went from where it began: Adam amplifies rounding of tiny gradients, so root mean squares only. */
async function changes(model: Module, c: GoldenCase, want: Record<string, Stats>): Promise<Check[]> {
  const checks: Check[] = [];
  const before = ruleState(model, c.weights),
    after = await model.stateDict();
  const largest = Math.max(...Object.values(want).map((stats) => stats.rms));
  for (const [key, stats] of Object.entries(want)) {
    const moved = after[key].data.map((x, i) => x - before[key].data[i]);
    checks.push(...statsChecks(key, moved, { rms: stats.rms }, 0.01, 1e-3 * largest));
  }
  return checks;
}
