/** What the runners of full-size networks share. */
import type { DType } from '../../kernels/index.ts';
import { currentGpu, noGrad, scope, type Tensor } from '../../tensor/index.ts';
import type { HostTensor } from '../../tensor/io/safetensors.ts';
import type { Module } from '../../nn/index.ts';
import { compare, statsChecks, type Stats } from './compare.ts';
import { inputFromRule } from './golden.ts';
import { actChecks, ours, watch } from './networks-common.ts';
import { tolerance, type Check, type GoldenCase } from './runner.ts';

/** Tensors in the file of a case. */
export type File = Record<string, HostTensor>;

/** An input by its rule, in PyTorch's layout. */
function hostInput(c: GoldenCase, name: string): HostTensor {
  const rule = c.inputs[name];
  return inputFromRule(rule, rule.seed ?? c.weights.seed, rule.name ?? `in.${name}`);
}

/** An input by its rule, in our layout. */
export function input(c: GoldenCase, name: string, options: { dtype?: DType; requiresGrad?: boolean } = {}): Tensor {
  return ours(hostInput(c, name), options);
}

/** Are the inputs those that the case was made with? */
export const inputChecks = (c: GoldenCase): Check[] =>
  Object.entries((c.input_check ?? {}) as Record<string, Stats>).flatMap(([name, stats]) =>
    statsChecks(`in.${name}`, hostInput(c, name).data, stats, 1e-6),
  );

/** [B, T] token ids. */
export function idsOf(file: File): Float32Array[] {
  const {
    shape: [B, T],
    data,
  } = file['in.input_ids'];
  return Array.from({ length: B }, (_, b) => data.subarray(b * T, (b + 1) * T));
}

/** An output in PyTorch's layout against its statistics, and whole or some tokens of it where the file has those. */
export function outputChecks(name: string, got: ArrayLike<number>, c: GoldenCase, file: File, limit: number): Check[] {
  const stats = c.out_stats[name];
  const checks = stats ? statsChecks(name, got, stats, limit) : [];
  if (file[`out.${name}`]) checks.push(whole(name, got, file, limit));
  const tokens = file[`out.${name}.tokens_0_1_2_mid_last`];
  if (tokens) {
    const [, T, C] = stats.shape;
    const rows = [0, 1, 2, T >> 1, T - 1].flatMap((t) => Array.from({ length: C }, (_, i) => got[t * C + i]));
    checks.push({ name: `${name}, some tokens`, got: rows, want: tokens.data, tolerance: limit });
  }
  return checks;
}

/** All numbers of an output. */
export const whole = (name: string, got: ArrayLike<number>, file: File, tolerance: number): Check => ({
  name,
  got,
  want: file[`out.${name}`].data,
  tolerance,
});

/** Parts of an image of which the file holds only those.   got: [1, C, H, W] */
export function sliceChecks(
  prefix: string,
  got: ArrayLike<number>,
  file: File,
  [, C, H, W]: number[],
  tolerance: number,
): Check[] {
  const every = (n: number, step: number) => Array.from({ length: n / step }, (_, i) => i * step);
  const run = (from: number, n: number) => Array.from({ length: n }, (_, i) => from + i);
  const cuts: Record<string, [rows: number[], columns: number[]]> = {
    strided: [every(H, 16), every(W, 16)],
    crop_center: [run(H / 2 - 12, 24), run(W / 2 - 12, 24)],
    crop_topleft: [run(0, 12), run(0, 12)],
    crop_bottomright: [run(H - 12, 12), run(W - 12, 12)],
  };
  return Object.entries(cuts).map(([name, [rows, columns]]) => ({
    name: `${prefix}.${name}`,
    got: run(0, C).flatMap((c) => rows.flatMap((y) => columns.map((x) => got[(c * H + y) * W + x]))),
    want: file[`${prefix}.${name}`].data,
    tolerance,
  }));
}

/** When something is wrong, run again and put the first wrong block before it. */
export async function withFirstWrongBlock(
  checks: Check[],
  model: Module,
  stats: Record<string, Stats>,
  limit: number,
  forward: () => Tensor,
): Promise<Check[]> {
  if (checks.every((check) => compare(check).passed)) return checks;
  const { acts } = watch(model, stats, () => noGrad(() => scope(forward)));
  const first = (await actChecks(acts, stats, limit)).find((check) => !compare(check).passed);
  return first ? [{ ...first, name: `first wrong block: ${first.name}` }, ...checks] : checks;
}

/** What a model makes, with the model gone and its memory given back. */
export async function alone<M extends Module>(make: () => Promise<M>, run: (model: M) => Tensor): Promise<Tensor> {
  const model = await make();
  const made = noGrad(() => scope(() => run(model)));
  await currentGpu().idle();
  model.dispose();
  await currentGpu().trim();
  return made;
}

/**
 * Three times what rounding the weights to f16 costs in PyTorch: as the case states it, or another of the same
 * configuration, or else the largest that the small cases of its networks state.
 */
export function halfTolerance(c: GoldenCase, all: readonly GoldenCase[]): number {
  const noises = (cases: readonly GoldenCase[]) =>
    cases.flatMap(({ noise }) =>
      Object.entries(noise ?? {}).flatMap(([key, v]) => (/f16_weights$/.test(key) ? v : [])),
    );
  const networks = ['unet', 'vae', 'clip'];
  const own = networks.filter((name) => c.kind.startsWith(name));
  const config = JSON.stringify(c.config);
  const stated = [
    noises([c]),
    noises(all.filter((other) => JSON.stringify(other.config) === config)),
    noises(all.filter(({ group }) => (own.length ? own : networks).includes(group))),
  ].find((list) => list.length);
  return stated ? 3 * Math.max(...(stated as number[])) : tolerance(c, 'f16');
}
