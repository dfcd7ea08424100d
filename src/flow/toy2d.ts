/**
 * Rectified flow in two dimensions, as in the authors' notebook: three blobs of noise, three blobs of data, on the corners
 * of a hexagon. Small enough to watch: the first flow bends where paths would cross, the second, after reflow, is straight.
 *
 * @see Liu et al. 2022, Flow Straight and Fast. https://arxiv.org/abs/2209.03003
 */
import { Adam, Linear, Module } from '../nn/index.ts';
import { currentGpu, mse, noGrad, scope, tanh, tensor } from '../tensor/index.ts';
import type { Tensor } from '../tensor/index.ts';
import { normal, uniform, words } from '../tensor/random.ts';
import { straightness } from './metrics/straightness.ts';

const RADIUS = 10;
const VARIANCE = 0.3;
const height = (RADIUS * Math.sqrt(3)) / 2;

/** Centres of the three modes of noise and data: alternate corners of a hexagon. */
export const hexagon = {
  noise: [
    [height, RADIUS / 2],
    [-height, RADIUS / 2],
    [0, -RADIUS],
  ],
  data: [
    [height, -RADIUS / 2],
    [-height, -RADIUS / 2],
    [0, RADIUS],
  ],
} as const;

/** `count` points of a mixture with equal shares: [count, 2] */
export function blobs(
  centres: readonly (readonly number[])[],
  count: number,
  seed: number,
  stream: string,
): Float32Array {
  const points = normal(seed, stream, 2 * count);
  const which = words(seed, `${stream} mode`, 0, count);
  return points.map((z, i) => {
    const mode = which[i >> 1] % centres.length;
    return centres[mode][i & 1] + Math.sqrt(VARIANCE) * z;
  });
}

/** [x, y, t] → 100 → 100 → 2, tanh. */
export class ToyVelocity extends Module {
  layers = [new Linear(3, 100), new Linear(100, 100), new Linear(100, 2)];

  /** input: [B, 3] → [B, 2] */
  forward(input: Tensor): Tensor {
    const [first, second, last] = this.layers;
    return last.forward(tanh(second.forward(tanh(first.forward(input)))));
  }
}

/** A batch of points with one time for each: [B, 2], [B] → [B, 3] */
function withTime(points: Float32Array, times: (i: number) => number): Float32Array {
  const out = new Float32Array((points.length / 2) * 3);
  for (let i = 0; i < points.length / 2; i++) {
    out[3 * i] = points[2 * i];
    out[3 * i + 1] = points[2 * i + 1];
    out[3 * i + 2] = times(i);
  }
  return out;
}

export interface ToyOptions {
  iterations: number;
  batch?: number;
  lr?: number;
  seed?: number;
  /** Draw a new partner for each point in every batch (the first flow), or keep the pairs (reflow). */
  repair: boolean;
  onStep?(step: number, loss: () => Promise<number>): void;
}

/** Train on pairs z0, z1: [N, 2] each. The rate falls to a tenth over the last fifth. */
export async function trainToy(
  network: ToyVelocity,
  z0: Float32Array,
  z1: Float32Array,
  options: ToyOptions,
): Promise<void> {
  const { iterations, batch = 2048, lr = 5e-3, seed = 0, repair, onStep } = options;
  const count = z0.length / 2;
  network.requiresGrad(true);
  const optimizer = new Adam(network.namedParameters(), { lr });
  for (let step = 0; step < iterations; step++) {
    const drawn = words(seed, 'toy batch', 2 * step * batch, 2 * batch);
    const times = uniform(seed, 'toy time', batch, step * batch);
    const xt = new Float32Array(3 * batch);
    const target = new Float32Array(2 * batch);
    for (let i = 0; i < batch; i++) {
      const a = drawn[2 * i] % count;
      const b = repair ? drawn[2 * i + 1] % count : a;
      for (let d = 0; d < 2; d++) {
        const from = z0[2 * a + d],
          to = z1[2 * b + d];
        xt[3 * i + d] = times[i] * to + (1 - times[i]) * from;
        target[2 * i + d] = to - from;
      }
      xt[3 * i + 2] = times[i];
    }
    scope(() => {
      const loss = mse(network.forward(tensor(xt, [batch, 3])), tensor(target, [batch, 2]));
      loss.backward();
      optimizer.lr = lr * Math.min(1, 0.1 + 0.9 * 5 * (1 - (step + 1) / iterations));
      optimizer.step();
      onStep?.(step, () => loss.item());
    });
    if (step % 32 === 31) await currentGpu().idle(); // stay close behind, so that stopping is quick
  }
  network.requiresGrad(false);
  optimizer.dispose();
}

export interface ToyPaths {
  z1: Float32Array; // [N, 2]
  velocities: Float32Array[]; // one for each step, [N, 2]
}

/** Follow the flow from z0 in equal steps. z0: [N, 2] */
export async function simulateToy(network: ToyVelocity, z0: Float32Array, steps: number): Promise<ToyPaths> {
  let z = z0;
  const velocities: Float32Array[] = [];
  for (let i = 0; i < steps; i++) {
    const v = noGrad(() =>
      scope(() =>
        network.forward(
          tensor(
            withTime(z, () => i / steps),
            [z.length / 2, 3],
          ),
        ),
      ),
    );
    const read = (await v.read()) as Float32Array;
    v.dispose();
    velocities.push(read);
    z = z.map((value, k) => value + read[k] / steps);
  }
  return { z1: z, velocities };
}

/** Share of points within three deviations of a centre. points: [N, 2] */
export function inMode(points: Float32Array, centres: readonly (readonly number[])[]): number {
  const reach = 9 * VARIANCE;
  let inside = 0;
  for (let i = 0; i < points.length; i += 2) {
    inside += Number(centres.some(([x, y]) => (points[i] - x) ** 2 + (points[i + 1] - y) ** 2 <= reach));
  }
  return inside / (points.length / 2);
}

export interface ToyReport {
  /** S / cost over 100 steps. */
  straightness: number;
  /** Share of points that end in a mode, in one step and in 100. */
  oneStep: number;
  manySteps: number;
}

export async function measureToy(network: ToyVelocity, z0: Float32Array): Promise<ToyReport> {
  const many = await simulateToy(network, z0, 100);
  const one = await simulateToy(network, z0, 1);
  return {
    straightness: straightness(many.velocities, z0.length / 2).ratio,
    oneStep: inMode(one.z1, hexagon.data),
    manySteps: inMode(many.z1, hexagon.data),
  };
}

export interface Lesson {
  first: ToyReport;
  second: ToyReport;
  /** Where 100 steps lead, before and after reflow. */
  paths: { first: ToyPaths; second: ToyPaths; z0: Float32Array };
}

/** The whole lesson: train a flow, let it make pairs, train it again on those, and measure both. */
export async function hexagonLesson({
  iterations = 800,
  reflowIterations = 1000,
  points = 10_000,
  batch = 2048,
  seed = 1,
  say = (_: string) => {},
} = {}): Promise<Lesson> {
  const z0 = blobs(hexagon.noise, points, seed, 'toy noise');
  const z1 = blobs(hexagon.data, points, seed, 'toy data');
  const test = blobs(hexagon.noise, 2000, seed + 1, 'toy noise');
  const network = new ToyVelocity().initialize(seed);
  await trainToy(network, z0, z1, { iterations, batch, seed, repair: true });
  const first = await measureToy(network, test);
  const firstPaths = await simulateToy(network, test.subarray(0, 400), 100);
  say(
    `first flow:   S/cost ${first.straightness.toFixed(4)}, in a mode after 1 step ${percent(first.oneStep)}, after 100 ${percent(first.manySteps)}`,
  );
  const coupled = (await simulateToy(network, z0, 100)).z1;
  await trainToy(network, z0, coupled, { iterations: reflowIterations, batch, seed: seed + 2, repair: false });
  const second = await measureToy(network, test);
  const secondPaths = await simulateToy(network, test.subarray(0, 400), 100);
  say(
    `after reflow: S/cost ${second.straightness.toFixed(4)}, in a mode after 1 step ${percent(second.oneStep)}, after 100 ${percent(second.manySteps)}`,
  );
  network.dispose();
  return { first, second, paths: { first: firstPaths, second: secondPaths, z0: test.slice(0, 800) } };
}

const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;
