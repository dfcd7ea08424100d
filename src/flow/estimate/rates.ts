/** How fast this adapter is at the very ops of a run: each is tried on its own, at its own shapes. */
import { currentGpu, matmul, noGrad, scope, Tensor } from '../../tensor/index.ts';
import { apply } from '../../tensor/tensor.ts';
import type { Rehearsal, Stage } from './rehearse.ts';
import { stages } from './rehearse.ts';
import { bytesOfCall, flopsOf } from './work.ts';
import type { Described, OpCall } from './work.ts';

/** How to measure. */
export interface RateOptions {
  /** Stop after about so many seconds (6), and after one op at least: what was not tried is taken to be like the rest of its kind. */
  budget?: number;
  /** Seconds, of the budget too; processor time in place of wall-clock time on a busy machine. */
  clock?: () => number;
}

/** What a run would take on this adapter. */
export interface Expected {
  /** Seconds, for all images together; the first run compiles kernels besides. */
  seconds: Record<Stage, number>;
  total: number;
  /** FLOP/s of a square matrix product, for comparison. */
  matmul: number;
  /** FLOP/s of each kind of op that is counted in FLOPs, as it is in this run. */
  rates: Record<string, number>;
  /** Share of the expected time that was tried, the rest being inferred from it. */
  measured: number;
}

/** A call takes about so long in a measurement, or is made on a part of its operands. */
const CALL = 0.06;
/** Bytes that arrays of one shape leave for those of the next. */
const MOST_POOLED = 2 ** 28;
/** Half of many calls in a row lasts about so long. */
const ROW = 0.012;
/** A byte that is moved costs about as much as so many FLOPs: says which calls are tried first. */
const BYTE = 10;

/** Try the ops of a rehearsal on the current device, most expensive first. */
export async function measureRates(
  { calls }: Pick<Rehearsal, 'calls'>,
  { budget = 6, clock = () => performance.now() / 1000 }: RateOptions = {},
): Promise<Expected> {
  const begin = clock();
  const peak = await matmulRate(clock);
  const seconds = new Map<OpCall, number>();
  const all = stages.flatMap((stage) => calls[stage]).sort((a, b) => b.count * workOf(b) - a.count * workOf(a));
  for (const call of all) {
    if (seconds.size > 0 && clock() - begin > budget) break;
    const part = shrunk(call, peak * CALL);
    seconds.set(call, ((await time(part, clock)) * workOf(call)) / workOf(part));
  }
  const tried = [...seconds.keys()];
  const of = (call: OpCall) => seconds.get(call) ?? workOf(call) * perWork(call, tried, seconds);
  const perStage = stages.map((stage) => [stage, sum(calls[stage], (call) => call.count * of(call))] as const);
  const total = perStage.reduce((n, [, s]) => n + s, 0);
  const kinds = [...new Set(all.filter((call) => flopsOf(call) > 0).map((call) => call.op.name))];
  const rate = (list: OpCall[]) => sum(list, (c) => c.count * flopsOf(c)) / sum(list, (c) => c.count * of(c));
  return {
    seconds: Object.fromEntries(perStage) as Record<Stage, number>,
    total,
    matmul: peak,
    rates: Object.fromEntries(kinds.map((kind) => [kind, rate(all.filter((call) => call.op.name === kind))])),
    measured: sum(tried, (call) => call.count * of(call)) / total,
  };
}

const sum = (calls: readonly OpCall[], of: (call: OpCall) => number): number => calls.reduce((n, c) => n + of(c), 0);

const workOf = (call: OpCall): number => flopsOf(call) + BYTE * bytesOfCall(call);

/** Seconds for each unit of work of ops of the same kind, or else of all that were tried. */
function perWork(call: OpCall, tried: readonly OpCall[], seconds: ReadonlyMap<OpCall, number>): number {
  const alike = tried.filter((other) => other.op.name === call.op.name);
  const from = alike.length ? alike : tried;
  return sum(from, (c) => c.count * seconds.get(c)!) / sum(from, (c) => c.count * workOf(c));
}

async function matmulRate(clock: () => number): Promise<number> {
  const [n, gpu] = [512, currentGpu()];
  using a = new Tensor(operand({ shape: [n, n], dtype: 'f32' }));
  return (
    (2 * n ** 3) /
    (await timeOf(
      () => matmul(a, a),
      clock,
      () => gpu.idle(),
    ))
  );
}

async function time({ op, inputs, attrs }: OpCall, clock: () => number): Promise<number> {
  const tensors = inputs.map((x) => x && new Tensor(operand(x)));
  try {
    return await timeOf(
      () => apply(op, tensors, attrs),
      clock,
      () => currentGpu().idle(),
    );
  } finally {
    for (const tensor of tensors) tensor?.dispose();
    if (currentGpu().memory().pooled > MOST_POOLED) await currentGpu().trim();
  }
}

/** Seconds of one call. The first compiles its kernels, the second says how many to make in a row. */
async function timeOf(call: () => Tensor, clock: () => number, idle: () => Promise<void>): Promise<number> {
  const row = async (n: number) => {
    const from = clock();
    for (let i = 0; i < n; i++) noGrad(() => scope(() => void call()));
    await idle();
    return (clock() - from) / n;
  };
  await row(1);
  const once = await row(1);
  if (once > ROW) return once;
  return row(Math.ceil((2 * ROW) / Math.max(once, 1e-6)));
}

/** Numbers as they occur: zeros would be cheaper for some adapters. */
function operand({ shape, dtype }: Described) {
  const size = shape.reduce((n, d) => n * d, 1);
  if (dtype === 'i32' || dtype === 'u32') return currentGpu().zeros(shape, dtype);
  const numbers = new Float32Array(size);
  const some = Math.min(size, 4096);
  for (let i = 0, seed = 1; i < some; i++) {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    numbers[i] = seed / 2 ** 31 - 1;
  }
  for (let at = some; at < size; at *= 2) numbers.copyWithin(at, 0, Math.min(at, size - at));
  return currentGpu().array(shape, numbers, dtype);
}

/** Operands that have the rows of the first one: pixels of an image, tokens of a text. */
const byRows: Record<string, readonly number[]> = { conv2d: [0, 3], linear: [0, 3], geglu: [0], attention: [0] };

/** The same op on fewer rows, where the whole is more work than `limit`. */
function shrunk(call: OpCall, limit: number): OpCall {
  const { inputs, output } = call;
  const axis = Math.max(0, Math.min(1, inputs[0]!.shape.length - 2));
  const rows = inputs[0]!.shape[axis];
  const fewer = Math.max(Math.min(rows, 8), Math.floor((rows * limit) / workOf(call) / 8) * 8);
  if (fewer >= rows) return call;
  const which = byRows[call.op.name] ?? inputs.flatMap((x, i) => (x?.shape[axis] === rows ? [i] : []));
  const cut = (x: Described, to: number): Described => ({
    ...x,
    shape: x.shape.map((d, i) => (i === axis ? to : d)),
  });
  return {
    ...call,
    inputs: inputs.map((x, i) => (x && which.includes(i) ? cut(x, fewer) : x)),
    output: cut(output, Math.round((output.shape[axis] * fewer) / rows)),
  };
}
