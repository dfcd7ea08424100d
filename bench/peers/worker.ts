/** One library in a process of its own; bench/peers/main.ts tells it what to do, one message at a time. */
import { wait } from '../../src/kernels/platform/node.ts';
import { operandsOf } from '../work.ts';
import type { Work } from '../work.ts';
import type { Call, Peer } from './peer.ts';

export type Request =
  { do: 'open' } | { do: 'prepare'; work: Work } | { do: 'batch'; milliseconds: number } | { do: 'release' };

export type Answer =
  | { opened: string }
  /** Time of the first call, and its numbers. */
  | { cold: number; numbers: Float32Array; length: number }
  /** Of one call: by the clock, and of all processors together. */
  | { milliseconds: number; processor: number; calls: number }
  | { released: true }
  | { error: string };

/** As many numbers of a result are compared, evenly spread. */
const COMPARED = 4096;

const opening: Record<string, (name: string) => Promise<Peer>> = {
  ours: async () => (await import('./ours.ts')).open(),
  'tfjs-webgpu': async () => (await import('./tfjs.ts')).open('webgpu'),
  'tfjs-wasm': async () => (await import('./tfjs.ts')).open('wasm'),
  'jax-webgpu': async () => (await import('./jax.ts')).open(),
  'ort-node-webgpu': async (name) => (await import('./ort.ts')).open(name),
  'ort-web-webgpu': async (name) => (await import('./ort.ts')).open(name),
  'ort-node-cpu': async (name) => (await import('./ort.ts')).open(name),
  'ort-web-wasm': async (name) => (await import('./ort.ts')).open(name),
};

const name = process.argv[2];
let peer: Peer;
let call: Call | undefined;
let each = 1; // milliseconds of one call, as last measured

async function answer(request: Request): Promise<Answer> {
  if (request.do === 'open') {
    peer = await opening[name](name);
    return { opened: peer.version };
  }
  if (request.do === 'prepare') {
    const prepare = peer.ops[request.work.kind] as ((work: Work, operands: unknown) => Promise<Call>) | undefined;
    if (!prepare) return { error: 'not offered' };
    const operands = operandsOf(request.work);
    const start = performance.now();
    call = await prepare(request.work, operands);
    const result = await wait(call.result());
    const cold = performance.now() - start;
    each = await time(1);
    return { cold, numbers: spread(result), length: result.length };
  }
  if (request.do === 'batch') {
    const calls = Math.max(1, Math.ceil(request.milliseconds / each));
    const before = process.cpuUsage();
    each = (await time(calls)) / calls;
    const { user, system } = process.cpuUsage(before);
    return { milliseconds: each, processor: (user + system) / 1000 / calls, calls };
  }
  await call?.dispose();
  call = undefined;
  await peer.done();
  return { released: true };
}

/** Ask for all calls, then wait once: how a network is run. Everybody waits by naps, which leaves the cores to the work. */
async function time(calls: number): Promise<number> {
  const start = performance.now();
  for (let i = 0; i < calls; i++) {
    const asked = call!.run();
    if (asked) await wait(asked);
  }
  await wait(peer.done());
  return performance.now() - start;
}

function spread(result: ArrayLike<number>): Float32Array {
  const step = Math.max(1, Math.floor(result.length / COMPARED)) | 1; // odd, to meet every channel
  return Float32Array.from({ length: Math.ceil(result.length / step) }, (_, i) => result[i * step]);
}

process.on('message', (request: Request) => {
  void answer(request)
    .catch((error: Error) => ({ error: String(error?.message ?? error) }))
    .then((result) => process.send!(result));
});
process.on('disconnect', () => process.exit(0));
