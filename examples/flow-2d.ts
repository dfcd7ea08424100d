/**
 * Watch a flow straighten:   node scripts/run.mjs examples/flow-2d.ts
 *
 * Trains a rectified flow between two sets of three blobs, then reflows it, and prints how straight each is. See
 * src/flow/toy2d.ts for the code: it is the whole method, in two dimensions.
 */
import { hexagonLesson } from '../src/flow/toy2d.ts';
import { currentGpu, init } from '../src/tensor/index.ts';

await init();
const start = performance.now();
const { first, second, paths } = await hexagonLesson({ say: console.log });
console.log(
  `reflow made it ${(first.straightness / second.straightness).toFixed(0)} times straighter, in ${((performance.now() - start) / 1000).toFixed(0)} s`,
);

for (const [title, { velocities, z1 }] of [
  ['first flow', paths.first],
  ['after reflow', paths.second],
] as const) {
  console.log(`\n${title}: where 400 points go (o start, · on the way, # end)`);
  console.log(plot(paths.z0.subarray(0, 800), velocities, z1));
}
currentGpu().destroy();

/** Characters on a 61 × 31 grid over [−13, 13]². */
function plot(z0: Float32Array, velocities: Float32Array[], z1: Float32Array): string {
  const rows = Array.from({ length: 31 }, () => Array<string>(61).fill(' '));
  const put = (points: Float32Array, mark: string) => {
    for (let i = 0; i < points.length; i += 2) {
      const column = Math.round(((points[i] + 13) / 26) * 60);
      const row = Math.round(((13 - points[i + 1]) / 26) * 30);
      if (rows[row]?.[column] !== undefined) rows[row][column] = mark;
    }
  };
  let z = z0;
  for (const v of velocities) {
    put(z, '·');
    z = z.map((value, i) => value + v[i] / velocities.length);
  }
  put(z0, 'o');
  put(z1, '#');
  return rows.map((row) => row.join('')).join('\n');
}
