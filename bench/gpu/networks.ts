/**
 * The networks of one 512 × 512 image with weights that are drawn: first call with everything compiled for it, then replays
 * of the compiled plan; each by itself, and all three one after the other, from token ids to pixels on the host.
 */
import { builtIn } from '../../src/flow/estimate/outline.ts';
import { AutoencoderKL, CLIPTextModel, UNet2DConditionModel } from '../../src/nn/index.ts';
import type { Module } from '../../src/nn/index.ts';
import { addScaled, compile, currentGpu, noGrad, scope, tensor } from '../../src/tensor/index.ts';
import type { DType } from '../../src/kernels/index.ts';
import type { Tensor } from '../../src/tensor/index.ts';
import { preset } from '../../src/flow/recipe/recipe.ts';
import { median } from '../machine.ts';
import { fill } from '../model.ts';
import { numbers } from '../work.ts';
import type { PartOptions } from './part.ts';

/** One network, or all of them, in one dtype. Milliseconds. */
export interface NetworkTime {
  name: 'text' | 'unet' | 'vae' | 'image';
  dtype: DType;
  parameters?: number;
  /** Upload of the weights, and the first call. */
  upload?: number;
  cold?: number;
  /** Replays: median and fastest. */
  warm: number;
  fastest: number;
  runs: number;
  /** Of a replay: JavaScript and submission, before the GPU is waited for. */
  host: number;
  dispatches?: number;
  /** Most bytes on the GPU. */
  peak: number;
  /** Sums of the kernels' own times, the longest first. */
  kernels?: [kernel: string, dispatches: number, milliseconds: number][];
}

const RUNS_MS = 3000;
const MOST_RUNS = 40;

export async function timeNetworks({ small, say, seconds }: PartOptions): Promise<NetworkTime[]> {
  const found: NetworkTime[] = [];
  const dtypes: DType[] = currentGpu().capabilities.f16 ? ['f16', 'f32'] : ['f32'];
  for (const dtype of dtypes) {
    if (seconds() < 20 && found.length) {
      say(`  ${dtype}: left out, the time is up`);
      continue;
    }
    found.push(...(await timeAll(dtype, small, say)));
  }
  return found;
}

async function timeAll(dtype: DType, small: boolean, say: PartOptions['say']): Promise<NetworkTime[]> {
  const gpu = currentGpu();
  const plan = small ? smallModel() : fullModel();
  const random = (shape: number[]) => tensor(numbers(sizeOf(shape), 7), shape, { dtype });
  const { side, channels, tokens, width } = plan;
  const inputs: Record<string, Tensor[]> = {
    text: [
      tensor(
        new Int32Array(tokens).map((_, i) => i),
        [1, tokens],
        { dtype: 'i32' },
      ),
    ],
    unet: [random([1, side, side, channels]), random([1, tokens, width])],
    vae: [random([1, side, side, channels])],
  };
  const found: NetworkTime[] = [];
  const calls: Record<string, (...inputs: Tensor[]) => Tensor> = {};
  const modules: Module[] = [];
  for (const name of ['text', 'unet', 'vae'] as const) {
    gpu.resetPeak();
    const start = performance.now();
    const { module, forward } = plan[name]();
    modules.push(module);
    await fill(module);
    module.to(dtype);
    await gpu.idle();
    const upload = performance.now() - start;
    const call = compile((...given: Tensor[]) => noGrad(() => scope(() => forward(...given))));
    calls[name] = call;
    const cold = await clock(async () => finite(call(...inputs[name]), name));
    const timed = await repeat(() => call(...inputs[name]).dispose());
    const result: NetworkTime = {
      ...{ name, dtype, parameters: module.parameterCount, upload, cold, ...timed },
      ...{ dispatches: call.plan?.dispatches, peak: gpu.memory().peak },
    };
    if (gpu.capabilities.timestamps) {
      const rows = await gpu.profile(() => call(...inputs[name]).dispose());
      result.kernels = rows.slice(0, 24).map((row) => [row.kernel, row.dispatches, row.milliseconds]);
    }
    found.push(result);
    say(describe(result));
  }
  const image = async () => {
    const text = calls.text(...inputs.text);
    const velocity = calls.unet(inputs.unet[0], text);
    const latents = addScaled(inputs.unet[0], velocity, { s: 1 });
    const pixels = calls.vae(latents);
    const host = await pixels.read();
    for (const x of [text, velocity, latents, pixels]) x.dispose();
    return host;
  };
  gpu.resetPeak();
  const times: number[] = [];
  for (let i = 0; i < 3 || (i < MOST_RUNS && sum(times) < RUNS_MS); i++) times.push(await clock(image));
  const whole: NetworkTime = {
    ...{ name: 'image', dtype, warm: median(times), fastest: Math.min(...times), runs: times.length },
    ...{ host: NaN, peak: gpu.memory().peak },
  };
  found.push(whole);
  say(describe(whole));
  for (const call of Object.values(calls)) (call as unknown as { dispose(): void }).dispose();
  for (const module of modules) module.dispose();
  for (const x of Object.values(inputs).flat()) x.dispose();
  await gpu.idle();
  await gpu.trim();
  return found;
}

interface Plan {
  side: number;
  channels: number;
  tokens: number;
  width: number;
  text(): Made;
  unet(): Made;
  vae(): Made;
}
interface Made {
  module: Module;
  forward(...inputs: Tensor[]): Tensor;
}

/** Stable Diffusion 1.5 at 512 × 512, one step. */
function fullModel(): Plan {
  const { textEncoder, network, vae } = builtIn.sd15;
  return plan(textEncoder, network, vae, { side: 64, channels: 4, tokens: 77, width: 768 });
}

/** The shipped model's networks: to see that all of this runs. */
function smallModel(): Plan {
  const { textEncoder, unet, vae } = preset('tiny');
  return plan({ ...textEncoder, vocab_size: 560 }, unet, vae.config, { side: 8, channels: 4, tokens: 8, width: 16 });
}

function plan(text: object, network: object, vae: object, sizes: Omit<Plan, 'text' | 'unet' | 'vae'>): Plan {
  return {
    ...sizes,
    text() {
      const module = new CLIPTextModel(text);
      return { module, forward: (ids) => module.forward(ids).lastHiddenState };
    },
    unet() {
      const module = new UNet2DConditionModel(network);
      return { module, forward: (z, words) => module.forward(z, 1000, words) };
    },
    vae() {
      const module = new AutoencoderKL(vae);
      return { module, forward: (z) => module.decode(z) };
    },
  };
}

async function repeat(run: () => void): Promise<Pick<NetworkTime, 'warm' | 'fastest' | 'runs' | 'host'>> {
  const gpu = currentGpu();
  const times: number[] = [];
  const hosts: number[] = [];
  for (let i = 0; i < 3 || (i < MOST_RUNS && sum(times) < RUNS_MS); i++) {
    const start = performance.now();
    run();
    hosts.push(performance.now() - start);
    await gpu.idle();
    times.push(performance.now() - start);
  }
  return { warm: median(times), fastest: Math.min(...times), runs: times.length, host: median(hosts) };
}

async function finite(output: Tensor, name: string): Promise<void> {
  const y = await output.read();
  output.dispose();
  if (!y.every(Number.isFinite) || y.every((v) => v === y[0]))
    throw new Error(`${name}: the result is not finite, or constant`);
}

async function clock(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return performance.now() - start;
}

const sum = (values: number[]) => values.reduce((a, b) => a + b, 0);
const sizeOf = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);

const describe = ({ name, dtype, upload, cold, warm, fastest, runs, host, dispatches }: NetworkTime): string =>
  [
    `  ${name.padEnd(6)}${dtype}`,
    `${warm.toFixed(2)} ms warm (fastest ${fastest.toFixed(2)} of ${runs})`,
    ...(cold === undefined ? [] : [`${cold.toFixed(0)} ms first`, `${upload!.toFixed(0)} ms weights`]),
    ...(dispatches ? [`${host.toFixed(2)} ms on the host for ${dispatches} dispatches`] : []),
  ].join('   ');
