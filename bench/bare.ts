/** Our products and convolutions beside a bare kernel that knows its sizes: what generality and gradients cost. */
import * as T from '../src/tensor/index.ts';
import { median } from './machine.ts';
import { calibrate, calls } from './measure.ts';
import type { Line } from './measure.ts';
import code from './bare.wgsl';
import { numbers } from './work.ts';

export interface BesideBare {
  name: string;
  gflops: number;
  /** The bare kernel in the same rounds. */
  bareGflops: number;
  /** Median over the rounds of ours ÷ the bare kernel's. */
  share: number;
}

const SIZE = 1024;
const TILE = { rows: 16, cols: 64, lanes: 8 };
const FLOP = 2 * SIZE ** 3;
const ROUNDS = 9;

/**
 * Time each line by turns with the bare kernel, so that both meet the same machine.
 * @throws when the bare kernel's product is wrong
 */
export async function besideBare(lines: Line[], print: (text: string) => void = console.log): Promise<BesideBare[]> {
  const gpu = T.currentGpu();
  const { family, subgroupSize, name } = gpu.capabilities;
  if (family !== 'cpu' || subgroupSize !== TILE.lanes) {
    print(`left out: the bare kernel is made for software adapters with subgroups of ${TILE.lanes}, not for ${name}`);
    return [];
  }
  const [a, b] = [1, 2].map((seed) => T.keep(T.tensor(numbers(SIZE * SIZE, seed), [SIZE, SIZE])));
  const y = gpu.empty([SIZE, SIZE]);
  const bare = () =>
    gpu.run(code, 'bare_matmul', { lanes: TILE.lanes }, [a.array, b.array, y], [SIZE / TILE.cols, SIZE / TILE.rows]);
  await check(bare, y, a, b);

  const results: BesideBare[] = [];
  for (const line of lines) {
    const { run, dispose } = line.prepare();
    const repeat = await calibrate(run);
    const [ours, theirs]: number[][] = [[], []];
    for (let round = 0; round < ROUNDS; round++) {
      ours.push(((line.flop! * repeat) / (await seconds(() => calls(run, repeat)))) * 1e-9);
      theirs.push((FLOP / (await seconds(bare))) * 1e-9);
    }
    dispose();
    await gpu.trim();
    const share = median(ours.map((rate, i) => rate / theirs[i]));
    const result = { name: line.name, gflops: median(ours), bareGflops: median(theirs), share };
    results.push(result);
    print(bareRow(result));
  }
  for (const each of [a, b, y]) each.dispose();
  return results;
}

async function seconds(work: () => void): Promise<number> {
  const start = performance.now();
  work();
  await T.currentGpu().idle();
  return (performance.now() - start) / 1000;
}

async function check(bare: () => void, y: { read(): Promise<ArrayLike<number>> }, a: T.Tensor, b: T.Tensor) {
  bare();
  const got = await y.read();
  const product = T.matmul(a, b);
  const want = await product.read();
  product.dispose();
  let worst = 0;
  for (let i = 0; i < want.length; i++) worst = Math.max(worst, Math.abs(got[i] - want[i]));
  if (!(worst < 1e-3)) throw new Error(`bare matmul: differs from matmul by ${worst}`);
}

/** 'conv2d 3×3 [1, 32, 32, 320] → 320     12.1 GFLOP/s   86 % of the bare kernel's 14.0' */
export const bareRow = ({ name, gflops, bareGflops, share }: BesideBare): string =>
  `${name.padEnd(62)} ${gflops.toFixed(1).padStart(6)} GFLOP/s ${(100 * share).toFixed(0).padStart(4)} % of the bare kernel's ${bareGflops.toFixed(1)}`;
