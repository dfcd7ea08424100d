import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { objectiveProblems, setObjective } from '../src/cli/objective-flags.ts';
import { makeLoss } from '../src/flow/losses.ts';
import { piecewiseObjective } from '../src/flow/piecewise.ts';
import { preset } from '../src/flow/recipe/recipe.ts';
import { runRecipe } from '../src/flow/recipe/stages.ts';
import { addScaled, init, mul, scope, tensor } from '../src/tensor/index.ts';
import type { Tensor } from '../src/tensor/index.ts';
import { randoms } from './randoms.ts';

const test = suite('flow: windows');
const gpu = await init();
const folder = mkdtempSync(join(tmpdir(), 'rectiflow-windows-'));
test.after(() => {
  rmSync(folder, { recursive: true, force: true });
  gpu.destroy();
});

const size = 6 * 2 * 2 * 3;
const [x0, x1] = [1, 2].map((seed) => Float32Array.from(randoms(size, seed, [-1, 1])));
const told = {
  ...{ shape: [2, 2, 3] as const, times: { distribution: 'uniform' } as const, seed: 3, stream: 'test' },
  loss: makeLoss({ type: 'l2' }),
  timeWaves: (timesteps: readonly number[]) => tensor(timesteps, [timesteps.length, 1]),
};
const n = 5;

/** A flow that bends: dz/dt = (1 + t) z */
const bent = (z: Tensor, t: number) => mul(z, 1 + t);

test('the student is asked between the two ends of a window, for the way the teacher goes through it', async () => {
  const K = 4;
  const objective = piecewiseObjective({ windows: K, solvingSteps: n }, told);
  const seen = new Set<number>();
  for (let step = 0; step < 40; step++) {
    const points = objective.points(x0, x1, step, bent);
    const [sample, timesteps, , target, left] = await Promise.all(points.map((x) => x.read()));
    const times = [...timesteps].map((timestep) => 1 - timestep / 1000);
    const k = Math.floor(times[0] * K + 1e-4);
    seen.add(k);
    assert.ok(
      times.every((t) => t > k / K - 1e-6 && t < (k + 1) / K + 1e-6),
      `${times} in window ${k}`,
    );
    sample.forEach((value, i) => {
      const t = times[Math.floor(i / 12)];
      const start = (k / K) * x1[i] + (1 - k / K) * x0[i];
      let end = start;
      for (let j = 0; j < n; j++) end += ((1 + (k + j / n) / K) * end) / (K * n);
      assert.ok(Math.abs(value - (start + (t * K - k) * (end - start))) < 1e-4);
      assert.ok(Math.abs(target[i] - K * (end - start)) < 1e-4);
      assert.ok(Math.abs(left[Math.floor(i / 12)] - ((k + 1) / K - t)) < 1e-5);
    });
    const cost = (v: Tensor) => scope(() => objective.loss(v, points)).item();
    assert.is(await cost(points[3]), 0);
    assert.ok(Math.abs((await cost(addScaled(points[3], points[3], { s: 1 }))) - meanSquare(target)) < 1e-4);
    points.forEach((x) => x.dispose());
  }
  assert.equal([...seen].sort(), [0, 1, 2, 3]);
});

const meanSquare = (values: ArrayLike<number>) => Array.from(values).reduce((sum, v) => sum + v * v, 0) / values.length;

test('a batch is a function of its step alone; one window of a straight flow is a pair', async () => {
  const straight = () => tensor(x1.map((image, i) => image - x0[i]), [6, 2, 2, 3]); // prettier-ignore
  const objective = piecewiseObjective({ windows: 1, solvingSteps: 2 }, told);
  const read = async (step: number) => {
    const points = objective.points(x0, x1, step, straight);
    return Promise.all([points[0], points[3]].map(async (x) => [...(await x.read())]));
  };
  const [a, again, other] = [await read(4), await read(4), await read(5)];
  assert.equal(a, again);
  assert.not.equal(a[0], other[0]);
  a[1].forEach((v, i) => assert.ok(Math.abs(v - (x1[i] - x0[i])) < 1e-5));
  for (const wrong of [{ windows: 0 }, { windows: 1.5 }, { windows: 2, solvingSteps: 0 }])
    assert.throws(() => piecewiseObjective(wrong, told), /must be a whole number/);
});

test('a run reflows in windows without pairs of its teacher, and is sampled in as many steps', async () => {
  const recipe = preset('tiny');
  const flags = { windows: 3, solving_steps: 2, distillation_steps: 2 };
  setObjective(recipe, flags);
  assert.equal([recipe.reflow.windows, recipe.reflow.solvingSteps, objectiveProblems(recipe, flags)], [3, 2, []]);
  await runRecipe(folder, recipe);
  assert.ok(!existsSync(join(folder, 'pairs')) && existsSync(join(folder, 'distill', 'pairs')));
  const json = (...path: string[]) => JSON.parse(readFileSync(join(folder, ...path), 'utf8'));
  const { sampling } = json('model', 'scheduler', 'scheduler_config.json');
  assert.equal([sampling.unet_reflow.steps, sampling.unet.steps], [3, 2]);
  assert.is(json('reflow', 'done.json').windows, 3);
  const rows: { network: string; steps: number; frechetDistance: number }[] = json('model', 'metrics.json').rows;
  const measured = (name: string) => rows.filter(({ network }) => network === name).map(({ steps }) => steps);
  assert.equal([measured('unet_reflow'), measured('unet')], [[4, 1, 2, 3], [2]]); // prettier-ignore
});

test('what windows do not go with is said', () => {
  const lines = (flags: Parameters<typeof setObjective>[1]) => {
    const recipe = preset('tiny');
    setObjective(recipe, flags);
    return objectiveProblems(recipe, flags).join('\n');
  };
  assert.match(lines({ solving_steps: 3 }), /--solving_steps is for --windows/);
  assert.match(
    lines({ windows: 4, loss_type: 'lpips', lpips_model: ['a.pth'] }),
    /--windows and --loss_type lpips for reflow: .* give l2 or huber/,
  );
  assert.match(lines({ windows: 4, prediction_type: 'epsilon' }), /--windows and --prediction_type epsilon/);
  assert.is(lines({ windows: 4, loss_type: 'huber' }), '');
});

test.run();
