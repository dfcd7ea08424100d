/** Run golden cases through the runner of their group. */
import { scope } from '../../tensor/index.ts';
import { compare } from './compare.ts';
import type { Golden, GoldenCase } from './golden.ts';
import { runFrechet } from './frechet.ts';
import { networkRunners } from './networks.ts';
import { runOp } from './ops.ts';
import { runOptim } from './optim.ts';
import { runPipe } from './pipe.ts';
import type { Result } from './report.ts';
import { Context, Skip, type Runner } from './runner.ts';
import { runSched } from './sched.ts';
import { runTok } from './tok.ts';

/** Group → runner. A group without one is skipped. */
export const runners: Record<string, Runner> = {
  op: runOp,
  optim: runOptim,
  pipe: runPipe,
  sched: runSched,
  tok: runTok,
  frechet: runFrechet,
  ...networkRunners,
};

/** Run cases one after the other; `done` hears of each. */
export async function verify(
  golden: Golden,
  cases: GoldenCase[],
  done: (result: Result) => void = () => {},
  dtype: 'f32' | 'f16' = 'f32',
): Promise<{ results: Result[]; context: Context }> {
  const context = new Context(golden, dtype);
  const results: Result[] = [];
  for (const c of cases) {
    const result = await runCase(c, context);
    results.push(result);
    done(result);
  }
  return { results, context };
}

/** Bytes that may wait for the next case. */
const LARGE = 2 ** 28;

async function runCase(c: GoldenCase, context: Context): Promise<Result> {
  const start = performance.now();
  const device = () => context.device?.catch(() => undefined);
  (await device())?.resetPeak();
  const outcome = await attempt(c, context);
  const milliseconds = Math.round(performance.now() - start);
  const gpu = await device();
  const peakBytes = gpu?.memory().peak ?? 0;
  if (gpu && gpu.memory().pooled > LARGE) await gpu.trim(); // networks of full size have few sizes in common
  return { id: c.id, group: c.group, failures: [], ...outcome, milliseconds, peakBytes };
}

type Outcome = Pick<Result, 'status' | 'reason' | 'worst'> & { failures?: Result['failures'] };

async function attempt(c: GoldenCase, context: Context): Promise<Outcome> {
  try {
    const runner = runners[c.group];
    if (!runner) throw new Skip(`no runner for group ${c.group} yet`);
    if (context.dtype === 'f16' && c.group !== 'full') throw new Skip('only group full is compared in f16');
    const checks = (await scope(() => runner(c, context))).map(compare);
    if (checks.length === 0) throw new Error('the runner compared nothing');
    const failures = checks.filter((check) => !check.passed);
    const worst = checks.reduce((a, b) => (b.error > a.error ? b : a));
    return { status: failures.length ? 'failed' : 'passed', failures, worst };
  } catch (error) {
    if (error instanceof Skip) return { status: 'skipped', reason: error.message };
    const reason = process.env.RECTIFLOW_DEBUG ? (error as Error).stack : (error as Error).message;
    return { status: 'failed', reason: reason?.replace(/\n\s*/g, '; ') };
  }
}
