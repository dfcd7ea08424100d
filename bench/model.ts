/**
 * Stable Diffusion 1.5 at full size, stage by stage: text encoder, U-Net and VAE decoder of one 512 × 512 image, each by
 * the clock and by processor time, beside a matmul measured before and after; then each of its ops alone.
 */
import type { ModelOutline } from '../src/flow/estimate/outline.ts';
import { rehearse } from '../src/flow/estimate/rehearse.ts';
import type { Rehearsal } from '../src/flow/estimate/rehearse.ts';
import { AutoencoderKL, CLIPTextModel, UNet2DConditionModel } from '../src/nn/index.ts';
import type { Module } from '../src/nn/module.ts';
import { currentGpu, keep, noGrad, scope, tensor } from '../src/tensor/index.ts';
import type { Tensor } from '../src/tensor/index.ts';
import { matmulProbe, opTimes } from './model-ops.ts';
import type { OpTime, Probe } from './model-ops.ts';
import { numbers } from './work.ts';

export const STAGES = ['text', 'unet', 'vae'] as const;
export type StageName = (typeof STAGES)[number];

/** Core-seconds of PyTorch in f32 for the same, on a machine of two cores such as the software adapter's. */
const PYTORCH: Partial<Record<StageName, number>> = { unet: 15, vae: 30 };

export interface StageTime {
  stage: StageName;
  parameters: number;
  flop: number;
  seconds: number;
  /** Of all threads together; undefined on a GPU, where it says nothing. */
  processorSeconds?: number;
  gflops: number;
  /** A square matmul right before and right after. */
  matmulGflops: number;
  ofMatmul: number;
  /** The same share by processor time: it hardly depends on what else runs. */
  ofMatmulByProcessor?: number;
  /** Times PyTorch's processor time. */
  timesPyTorch?: number;
  ops: OpTime[];
}

export interface ModelOptions {
  model: ModelOutline;
  /** Of the image, in pixels. */
  side: number;
  stages: readonly StageName[];
  /** Also run each distinct op alone. */
  ops: boolean;
  print(text: string): void;
}

interface Stage {
  flop: number;
  calls: Rehearsal['calls'][keyof Rehearsal['calls']];
  make(): Module;
  /** One call. `side` is that of the image. */
  run(module: Module, side: number): Tensor;
}

export async function benchModel({ model, side, stages, ops, print }: ModelOptions): Promise<StageTime[]> {
  const plan = { steps: 1, guidanceScale: 1, height: side, width: side, scheduler: undefined };
  const { calls, flops } = await rehearse({ ...model, scheduler: undefined }, plan);
  const known: Record<StageName, Stage> = {
    text: {
      flop: flops.text,
      calls: calls.text,
      make: () => new CLIPTextModel(model.textEncoder),
      run: (module) => {
        const { max_position_embeddings: length } = (module as CLIPTextModel).config;
        return (module as CLIPTextModel).forward(tensor(new Int32Array(length), [1, length], { dtype: 'i32' }))
          .lastHiddenState;
      },
    },
    unet: {
      flop: flops.network,
      calls: calls.network,
      make: () => new UNet2DConditionModel(model.network),
      run: (module, side) => {
        const unet = module as UNet2DConditionModel;
        const { in_channels, cross_attention_dim } = unet.config;
        const latent = side / factor;
        return unet.forward(random(1, latent, latent, in_channels), 500, random(1, tokens, cross_attention_dim));
      },
    },
    vae: {
      flop: flops.decoder,
      calls: calls.decoder,
      make: () => new AutoencoderKL(model.vae),
      run: (module, side) => {
        const vae = module as AutoencoderKL;
        return vae.decode(random(1, side / factor, side / factor, vae.config.latent_channels));
      },
    },
  };
  const { max_position_embeddings: tokens = 77 } = model.textEncoder;
  const factor = 2 ** ((model.vae.block_out_channels?.length ?? 4) - 1);
  const results: StageTime[] = [];
  for (const stage of stages) {
    const result = await timeStage(stage, known[stage], side);
    results.push(result);
    print(stageRow(result));
    if (!ops) continue;
    result.ops = await opTimes(known[stage].calls);
    for (const line of opRows(result.ops)) print(line);
  }
  return results;
}

async function timeStage(stage: StageName, { flop, make, run }: Stage, side: number): Promise<StageTime> {
  const gpu = currentGpu();
  const module = make();
  try {
    await fill(module);
    const call = (side: number) => noGrad(() => scope(() => run(module, side)));
    await finish(call(side / 2)); // compiles most kernels, at a quarter of the work
    const probe = await matmulProbe();
    const before = await probe();
    const cpu = process.cpuUsage();
    const start = performance.now();
    const output = call(side);
    await gpu.idle();
    const seconds = (performance.now() - start) / 1000;
    const { user, system } = process.cpuUsage(cpu);
    const after = await probe();
    probe.dispose();
    await finish(output);
    const both = (of: (p: Probe) => number) => 2 / (1 / of(before) + 1 / of(after));
    const matmulGflops = both((p) => p.gflops);
    const result: StageTime = {
      stage,
      parameters: module.parameterCount,
      flop,
      seconds,
      gflops: flop / seconds / 1e9,
      matmulGflops,
      ofMatmul: flop / seconds / 1e9 / matmulGflops,
      ops: [],
    };
    if (gpu.capabilities.family !== 'cpu') return result;
    const processorSeconds = (user + system) / 1e6;
    const ofMatmulByProcessor = flop / processorSeconds / 1e9 / both((p) => p.processorGflops);
    const theirs = PYTORCH[stage];
    return { ...result, processorSeconds, ofMatmulByProcessor, timesPyTorch: theirs && processorSeconds / theirs };
  } finally {
    for (const p of module.namedParameters().values()) p.dispose();
    await gpu.trim();
  }
}

/** @throws when the result is not an image, latents or states: all finite, and not all the same */
async function finish(output: Tensor): Promise<void> {
  const y = await output.read();
  output.dispose();
  if (!y.every(Number.isFinite) || y.every((v) => v === y[0]))
    throw new Error('model: a result is not finite, or constant');
}

const random = (...shape: number[]): Tensor =>
  tensor(
    numbers(
      shape.reduce((a, b) => a * b),
      7,
    ),
    shape,
  );

/**
 * Weights as wide as PyTorch's first ones: the same 65,536 numbers over and over, made in seconds. They cost no less to
 * multiply than trained ones.
 */
export async function fill(module: Module): Promise<void> {
  const block = numbers(2 ** 16, 1);
  for (const [key, p] of module.namedParameters()) {
    keep(p);
    if (p.shape.length < 2) p.array.write(p.init(1, key, p.size));
    else {
      const data = new Float32Array(p.size);
      const bound = 1 / Math.sqrt(p.size / p.shape[0]);
      for (let i = 0; i < Math.min(p.size, block.length); i++) data[i] = block[i] * bound;
      for (let at = block.length; at < p.size; at *= 2) data.copyWithin(at, 0, Math.min(at, p.size - at));
      p.array.write(data);
    }
    await currentGpu().idle(); // so that the host does not hold all of them
  }
}

/** 'unet   859.5 M parameters   0.803 TFLOP   40.1 s   80.0 core-s   20.0 GFLOP/s   62 % of the matmul's 32.0 …' */
export function stageRow(r: StageTime): string {
  const percent = (x: number) => `${(100 * x).toFixed(0)} %`;
  return [
    r.stage.padEnd(5),
    `${(r.parameters / 1e6).toFixed(1)} M parameters`,
    `${(r.flop / 1e12).toFixed(3)} TFLOP`,
    `${r.seconds.toFixed(1)} s`,
    ...(r.processorSeconds ? [`${r.processorSeconds.toFixed(1)} core-s`] : []),
    `${r.gflops.toFixed(1)} GFLOP/s`,
    `${percent(r.ofMatmul)} of the matmul's ${r.matmulGflops.toFixed(1)}`,
    ...(r.ofMatmulByProcessor ? [`${percent(r.ofMatmulByProcessor)} by processor time`] : []),
    ...(r.timesPyTorch ? [`${r.timesPyTorch.toFixed(1)} × PyTorch's core-seconds`] : []),
  ].join('   ');
}

/** Kinds of ops, then the calls that take most. */
export function opRows(ops: OpTime[]): string[] {
  const total = ops.reduce((n, o) => n + o.count * o.seconds, 0);
  const kinds = new Map<string, OpTime[]>();
  for (const o of ops) kinds.set(o.op, [...(kinds.get(o.op) ?? []), o]);
  const line = (name: string, list: OpTime[]) => {
    const sum = (of: (o: OpTime) => number) => list.reduce((n, o) => n + o.count * of(o), 0);
    const [seconds, flop] = [sum((o) => o.seconds), sum((o) => o.flop)];
    const share = (100 * sum((o) => o.flop / o.matmul)) / seconds;
    const rate = flop
      ? `${(flop / seconds / 1e9).toFixed(1).padStart(7)} GFLOP/s ${share.toFixed(0).padStart(4)} %`
      : '';
    return `  ${name.padEnd(70)} ${seconds.toFixed(2).padStart(7)} s ${((100 * seconds) / total).toFixed(1).padStart(5)} % ${rate}`;
  };
  const time = (list: OpTime[]) => list.reduce((n, o) => n + o.count * o.seconds, 0);
  return [
    ...[...kinds].sort(([, a], [, b]) => time(b) - time(a)).map(([kind, list]) => line(kind, list)),
    ...[...ops]
      .sort((a, b) => b.count * b.seconds - a.count * a.seconds)
      .slice(0, 24)
      .map((o) => line(`  ${o.count} × ${o.op} ${o.shapes}`, [o])),
    line('all ops, each by itself', ops),
  ];
}
