/** Group "optim": optimiser steps, averages of weights, gradient clipping and learning-rate schedules. */
import { Adam, AdamW, EMA, emaDecay, schedule, SGD, type Optimizer, type ScheduleName } from '../../nn/optim/index.ts';
import { linear, mean, square, sub, tensor, type Tensor } from '../../tensor/index.ts';
import type { HostTensor } from '../../tensor/io/safetensors.ts';
import { Skip, tolerance, type Check, type GoldenCase, type Runner } from './runner.ts';

export const runOptim: Runner = async (c, context) => {
  const kinds: Record<string, (c: GoldenCase, host: Record<string, HostTensor>) => Promise<Check[]>> = {
    optimizer: optimizerChecks,
    ema: emaChecks,
    clip_grad_norm: clipChecks,
    lr_schedule: scheduleChecks,
  };
  const run = kinds[c.kind];
  if (!run) throw new Skip(`optim kind ${c.kind} is not known`);
  if (c.kind !== 'lr_schedule') await context.gpu();
  return run(c, await context.tensors(c));
};

/** A small least-squares problem, loss = mean((X Wᵀ + b − Y)²), step by step; or given gradients. */
async function optimizerChecks(c: GoldenCase, host: Record<string, HostTensor>): Promise<Check[]> {
  const limit = tolerance(c);
  const W = trainable(host.W0),
    b = trainable(host.b0),
    X = upload(host.X),
    Y = upload(host.Y);
  const optimizer = makeOptimizer(
    c,
    new Map([
      ['W', W],
      ['b', b],
    ]),
  );
  const checks: Check[] = [];
  for (let step = 0; step < c.steps; step++) {
    if (c.fixed_gradients) {
      W.grad = upload(row(host.gW, step));
      b.grad = upload(row(host.gb, step));
    } else {
      const loss = mean(square(sub(linear(X, W, b), Y)));
      loss.backward();
      checks.push({ name: `loss ${step}`, got: [await loss.item()], want: [c.loss[step]], tolerance: limit });
      checks.push({ name: `gW ${step}`, got: await W.grad!.read(), want: row(host.gW, step).data, tolerance: limit });
    }
    optimizer.step();
    checks.push({ name: `W ${step}`, got: await W.read(), want: row(host.W, step).data, tolerance: limit });
    checks.push({ name: `b ${step}`, got: await b.read(), want: row(host.b, step).data, tolerance: limit });
  }
  const state = await optimizer.stateDict();
  for (const [name, want] of Object.entries(host)) {
    if (!name.startsWith('state_W.')) continue;
    checks.push({ name, got: state[name.replace('state_', '')].data, want: want.data, tolerance: limit });
  }
  optimizer.dispose();
  return checks;
}

function makeOptimizer({ optimizer, hyper }: GoldenCase, parameters: Map<string, Tensor>): Optimizer {
  const { lr, betas, eps, momentum, nesterov, weight_decay: weightDecay } = hyper;
  if (optimizer === 'AdamW') return new AdamW(parameters, { lr, betas, eps, weightDecay });
  if (optimizer === 'Adam') return new Adam(parameters, { lr, betas, eps, weightDecay });
  if (optimizer === 'SGD') return new SGD(parameters, { lr, momentum, nesterov, weightDecay });
  throw new Skip(`optimizer ${optimizer} is not known`);
}

/** Averages of parameters that are given for each step. */
async function emaChecks(c: GoldenCase, host: Record<string, HostTensor>): Promise<Check[]> {
  const { decay, use_ema_warmup: useEmaWarmup, inv_gamma: invGamma, power } = c.kwargs;
  const options = { decay, useEmaWarmup, invGamma, power };
  const p = upload(row(host.p, 0)),
    ema = new EMA(new Map([['p', p]]), options);
  const steps: number = c.decays.length,
    limit = tolerance(c);
  const decays = Array.from({ length: steps }, (_, i) => emaDecay(i + 1, options));
  const checks: Check[] = [{ name: 'decays', got: decays, want: c.decays, tolerance: limit }];
  for (let step = 0; step < steps; step++) {
    p.array.write(row(host.p, step + 1).data);
    ema.step();
    checks.push({
      name: `shadow ${step}`,
      got: await ema.shadow.get('p')!.read(),
      want: row(host.shadow, step).data,
      tolerance: limit,
    });
  }
  ema.dispose();
  return checks;
}

/** One step of plain SGD with rate 1 from zero leaves the clipped gradients, negated, as the weights. */
async function clipChecks(c: GoldenCase, host: Record<string, HostTensor>): Promise<Check[]> {
  const names = Object.keys(host).filter((name) => /^g\d+$/.test(name));
  const parameters = new Map(
    names.map((name) => [name, trainable({ ...host[name], data: new Float32Array(host[name].data.length) })]),
  );
  for (const [name, p] of parameters) p.grad = upload(host[name]);
  const optimizer = new SGD(parameters, { lr: 1, maxGradNorm: c.max_norm }),
    limit = tolerance(c);
  optimizer.step();
  const { gradNorm } = await optimizer.report();
  const checks: Check[] = [{ name: 'norm', got: [gradNorm], want: [c.total_norm], tolerance: limit }];
  for (const [name, p] of parameters) {
    const clipped = (await p.read()).map((x) => -x);
    checks.push({ name, got: clipped, want: host[name.replace('g', 'clipped')].data, tolerance: limit });
  }
  optimizer.dispose();
  return checks;
}

async function scheduleChecks(c: GoldenCase): Promise<Check[]> {
  return Object.entries(c.schedules as Record<string, { args: any; lr: number[] }>).map(([name, { args, lr }]) => {
    const rate = schedule(name as ScheduleName, {
      lr: c.base_lr,
      warmupSteps: args.num_warmup_steps,
      trainingSteps: args.num_training_steps,
      cycles: args.num_cycles,
      power: args.power,
      lrEnd: args.lr_end,
      stepRules: args.step_rules,
    });
    return { name, got: lr.map((_, step) => rate(step)), want: lr, tolerance: tolerance(c) };
  });
}

/** Entry `i` along the first axis. */
function row({ shape: [, ...shape], data }: HostTensor, i: number): HostTensor {
  const size = shape.reduce((n, d) => n * d, 1);
  return { shape, data: data.slice(i * size, (i + 1) * size) };
}

const upload = ({ data, shape }: HostTensor): Tensor => tensor(data, shape);
const trainable = ({ data, shape }: HostTensor): Tensor => tensor(data, shape, { requiresGrad: true });
