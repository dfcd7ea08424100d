/** What the runners of whole networks share. */
import type { DType } from '../../kernels/index.ts';
import { currentGpu, keep, tensor, type Tensor } from '../../tensor/index.ts';
import type { HostTensor } from '../../tensor/io/safetensors.ts';
import { observe, outlineOf, type Module, type StateDict } from '../../nn/index.ts';
import { gradientCheck, statsChecks, type Stats } from './compare.ts';
import { channelsLast, channelsSecond } from './layout.ts';
import { parameter, type Weights } from './rule.ts';
import type { Check, GoldenCase } from './runner.ts';

/** Bytes that may wait to be copied to the GPU. */
const WAITING = 2 ** 28;

/**
 * A model with the weights of a case, made one after the other. It begins as an outline: networks of 9 GB have no room for
 * zeros that are written over.
 */
export async function loadRule<M extends Module>(make: () => M, weights: Weights, dtype: DType = 'f32'): Promise<M> {
  const model = outlineOf(make);
  let waiting = 0;
  for (const [key, p] of model.namedParameters()) {
    const shape = [...p.checkpointShape];
    p.fill({ shape, data: parameter(key, shape, weights) }, dtype);
    if ((waiting += 4 * p.size) < WAITING) continue;
    await currentGpu().idle();
    waiting = 0;
  }
  return model;
}

export function ruleState(model: Module, weights: Weights): StateDict {
  const rows = [...model.namedParameters()].map(([key, p]) => {
    const shape = [...p.checkpointShape];
    return [key, { shape, data: parameter(key, shape, weights) }] as const;
  });
  return Object.fromEntries(rows);
}

/** PyTorch's [B, C, H, W] → ours; other ranks as they are. */
export const ours = (host: HostTensor, options: { requiresGrad?: boolean; dtype?: DType } = {}): Tensor => {
  const { shape, data } = host.shape.length === 4 ? channelsLast(host) : host;
  return tensor(data, shape, options);
};

/** Our tensor in PyTorch's layout, read back. */
export async function theirs(t: Tensor): Promise<ArrayLike<number>> {
  const data = await t.read();
  return t.shape.length === 4 ? channelsSecond({ shape: [...t.shape], data }).data : data;
}

/** Fused into other kernels here, so what they make alone cannot be seen. */
const fused = /(^|\.)conv_norm_out$/;

/** Run `fn` and remember what the blocks of `model` made that the case has statistics of. */
export function watch<T>(
  model: Module,
  stats: Record<string, Stats>,
  fn: () => T,
): { result: T; acts: Map<string, Tensor> } {
  const acts = new Map<string, Tensor>();
  const seen = (key: string, output: Tensor) => {
    if (stats[key] && !fused.test(key)) acts.set(key, keep(output.detach()));
  };
  return { result: observe(model, seen, fn), acts };
}

/** Block after block, so that the first failure is the first wrong block. Frees `acts`. */
export async function actChecks(
  acts: Map<string, Tensor>,
  stats: Record<string, Stats>,
  tolerance: number,
): Promise<Check[]> {
  const checks: Check[] = [];
  for (const key of Object.keys(stats)) {
    using act = acts.get(key);
    if (act) checks.push(...statsChecks(key, await theirs(act), stats[key], tolerance));
  }
  return checks;
}

/** Gradients of all parameters: whole ones from the file (`grad.w.*`), statistics of every one from the side file. */
export async function gradientChecks(
  model: Module,
  c: GoldenCase,
  file: Record<string, HostTensor>,
  stats: Record<string, Stats>,
  tolerance: number,
): Promise<Check[]> {
  const checks: Check[] = [];
  const scale = c.grad_abs_scale;
  for (const [key, p] of model.namedParameters()) {
    const whole = file[`grad.w.${key}`];
    if (!stats[key] && !whole) continue;
    if (!p.grad) throw new Error(`no gradient reached ${key}`);
    const got = await theirs(p.grad);
    if (whole) checks.push(gradientCheck(`grad.w.${key}`, got, whole.data, tolerance, scale));
    if (stats[key]) checks.push(...statsChecks(key, got, stats[key], tolerance, 1e-3 * scale));
  }
  return checks;
}

export async function inputGradient(
  name: string,
  t: Tensor,
  c: GoldenCase,
  file: Record<string, HostTensor>,
  tolerance: number,
): Promise<Check[]> {
  const want = file[`grad.in.${name}`];
  if (!want) return [];
  if (!t.grad) throw new Error(`no gradient reached the input ${name}`);
  return [gradientCheck(`grad.in.${name}`, await theirs(t.grad), want.data, tolerance, c.grad_abs_scale)];
}
