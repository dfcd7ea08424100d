/** What is not arithmetic: JavaScript for each call, an empty dispatch, waiting, the size of the engine, idling. */
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { gzipSync } from 'node:zlib';
import * as T from '../src/tensor/index.ts';
import { median } from './machine.ts';
import code from './peak.wgsl';

export interface Overhead {
  name: string;
  value: number;
  unit: string;
}

const BATCHES = 9;

export async function measureOverhead(
  seconds: number,
  print: (text: string) => void = console.log,
): Promise<Overhead[]> {
  const gpu = T.currentGpu();
  const results: Overhead[] = [];
  const add = (name: string, value: number, unit: string) => {
    results.push({ name, value, unit });
    print(`${name.padEnd(62)} ${value.toFixed(value < 100 ? 1 : 0).padStart(8)} ${unit}`);
  };
  const x = T.keep(T.tensor([1, 2, 3, 4]));
  const empty = () => gpu.run(code, 'empty', { rounds: 0 }, [x.array], [1]);
  const forward = () => T.noGrad(() => T.scope(() => void T.neg(x)));
  const backward = () => {
    x.requiresGrad = true;
    T.scope(() => T.sum(T.neg(x)).backward());
    x.grad!.dispose();
    x.grad = undefined;
    x.requiresGrad = false;
  };
  const count = Math.max(10, Math.round(1000 * seconds));

  const bare = await costs(empty, count);
  add('an empty dispatch, JavaScript', bare.javascript, 'µs');
  add('an empty dispatch, until the GPU is done', bare.whole, 'µs');
  add(
    'a call of an op without gradients, JavaScript for each dispatch',
    (await costs(forward, count)).javascript,
    'µs',
  );
  add(
    'a call with gradients and backward, JavaScript for each dispatch',
    (await costs(backward, count)).javascript,
    'µs',
  );
  const chain = T.compile((y: T.Tensor) => {
    for (let i = 0; i < 100; i++) y = T.neg(y);
    return y;
  });
  const replay = await costs(() => chain(x).dispose(), Math.ceil(count / 100));
  chain.dispose();
  add('a replay of 100 dispatches, JavaScript for each', replay.javascript, 'µs');
  add('a dispatch and waiting for it', await waits(async () => (empty(), await gpu.idle()), count / 10), 'µs');
  add('reading four numbers back', await waits(() => x.read(), count / 10), 'µs');
  add('the engine for browsers, gzipped', (await engineBytes()) / 1000, 'kB');
  add('an idle process with an open device', await idleShare(2 * seconds), '% of a core');
  x.dispose();
  return results;
}

/** Microseconds for each dispatch: until the call returns, and until the GPU is done with all. Medians of batches. */
async function costs(run: () => void, count: number): Promise<{ javascript: number; whole: number }> {
  const gpu = T.currentGpu();
  run();
  await gpu.idle();
  const [javascript, whole]: number[][] = [[], []];
  for (let batch = 0; batch < BATCHES; batch++) {
    const before = gpu.dispatches;
    const start = performance.now();
    for (let i = 0; i < count; i++) run();
    const asked = performance.now();
    await gpu.idle();
    const dispatches = gpu.dispatches - before;
    javascript.push((1000 * (asked - start)) / dispatches);
    whole.push((1000 * (performance.now() - start)) / dispatches);
  }
  return { javascript: median(javascript), whole: median(whole) };
}

async function waits(work: () => Promise<unknown>, count: number): Promise<number> {
  const times: number[] = [];
  for (let i = 0; i < Math.max(3, count); i++) {
    const start = performance.now();
    await work();
    times.push(1000 * (performance.now() - start));
  }
  return median(times);
}

/** As `npm run build` makes it. */
async function engineBytes(): Promise<number> {
  const { bundle } = await import(pathToFileURL(resolve('scripts/bundle.mjs')).href);
  const options = { minify: true, splitting: false, sourcemap: false, write: false };
  const { outputFiles } = await bundle({ index: 'src/engine.ts' }, 'dist', 'browser', options);
  return gzipSync(outputFiles[0].contents, { level: 9 }).length;
}

async function idleShare(seconds: number): Promise<number> {
  const before = process.cpuUsage();
  const start = performance.now();
  await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 10 / (performance.now() - start);
}
