/**
 * Watch a flow straighten:   node scripts/run.mjs examples/09-rectified-flow-2d.ts [out.png]
 *
 * Trains a rectified flow from three blobs of noise to three blobs of data, lets it make pairs, and trains it again on
 * those: reflow. Paths of the first flow bend where they would cross; after reflow they are straight, so that one step
 * goes where a hundred go. src/flow/toy2d.ts is the whole method in two dimensions; here it is run and drawn.
 */
import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { init } from 'rectiflow';
import { palette } from '../src/cli/pictures/curves.ts';
import { renderSvg } from '../src/cli/pictures/image.ts';
import { drawText } from '../src/cli/pictures/text.ts';
import { hexagonLesson } from '../src/flow/toy2d.ts';
import type { ToyPaths } from '../src/flow/toy2d.ts';

const file = process.argv[2] ?? 'out/flow-2d.png';
const gpu = await init();
// A third of the steps of the whole lesson (test/flow-toy2d.test.ts) with a quarter of the batch: some 50 times straighter.
const { first, second, paths } = await hexagonLesson({
  iterations: 300,
  reflowIterations: 300,
  batch: 512,
  points: 4000,
  say: console.log,
});
const gain = first.straightness / second.straightness;
console.log(`reflow made it ${gain.toFixed(0)} times straighter`);

await mkdir(dirname(file), { recursive: true });
const panels = [panel('first flow', paths.z0, paths.first, 0), panel('after reflow', paths.z0, paths.second, 420)];
const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="840" height="450" viewBox="0 0 840 450">${panels.join('')}</svg>`;
await writeFile(file, await renderSvg(svg, 2));
console.log(file);

assert.ok(gain >= 10, `only ${gain} times straighter`);
assert.ok(
  first.oneStep <= 0.1 && second.oneStep >= 0.4,
  `in a mode after one step: ${first.oneStep} → ${second.oneStep}`,
);
gpu.destroy();

/** 200 paths: where they start, how they go, where they end. z0: [N, 2] */
function panel(title: string, z0: Float32Array, { velocities }: ToyPaths, left: number): string {
  const [toX, toY] = [(x: number) => left + 210 + 15 * x, (y: number) => 240 - 15 * y];
  const at = (z: ArrayLike<number>, i: number) => `${toX(z[2 * i]).toFixed(1)} ${toY(z[2 * i + 1]).toFixed(1)}`;
  const states = [Float64Array.from(z0)];
  for (const v of velocities) states.push(states.at(-1)!.map((value, k) => value + v[k] / velocities.length));
  const svg = [drawText(title, left + 210, 28, { size: 16, bold: true, anchor: 'middle' })];
  for (let i = 0; i < 200; i++) {
    svg.push(`<path d="M${states.map((z) => at(z, i)).join('L')}" fill="none" stroke="#888" stroke-opacity="0.35"/>`);
  }
  for (const [z, colour] of [
    [states[0], palette[0]],
    [states.at(-1)!, palette[1]],
  ] as const) {
    for (let i = 0; i < 200; i++) {
      const [x, y] = at(z, i).split(' ');
      svg.push(`<circle cx="${x}" cy="${y}" r="2" fill="${colour}"/>`);
    }
  }
  return svg.join('');
}
