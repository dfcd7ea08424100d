import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { init } from '../src/tensor/index.ts';
import { hexagonLesson } from '../src/flow/toy2d.ts';

const test = suite('flow: 2-D toy');
const gpu = await init();
test.after(() => gpu.destroy());

test('on the hexagon, reflow straightens the flow 50 times and makes one step enough', async () => {
  const { first, second } = await hexagonLesson({ say: (words) => console.log(`  ${words}`) });
  assert.ok(
    first.straightness / second.straightness >= 50,
    `straightness ${first.straightness} → ${second.straightness}`,
  );
  assert.ok(first.oneStep <= 0.1, `first flow, 1 step: ${first.oneStep}`);
  assert.ok(first.manySteps >= 0.85, `first flow, 100 steps: ${first.manySteps}`);
  assert.ok(second.oneStep >= 0.55, `after reflow, 1 step: ${second.oneStep}`);
});

test.run();
