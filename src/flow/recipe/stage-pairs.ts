import { drawPrompts } from './captions.ts';
import { makePairs } from './pairs.ts';
import { encodeCaptions, latentShapeOf, openNetwork, teacherVelocity } from './student.ts';
import type { Run } from './run.ts';

/** What the teacher makes of noise, with guidance: the coupling that reflow learns. */
export async function pairsStage(run: Run): Promise<void> {
  const {
    seed,
    data: { specificCaption },
    pairs: options,
  } = run.recipe;
  const data = await run.data();
  const texts = await encodeCaptions(run);
  const teacher = await openNetwork(run, 'unet_teacher');
  const start = performance.now();
  const prompts = drawPrompts(data, options.count, seed + 3, specificCaption).map(({ text }) => text);
  const pairs = await makePairs(
    run,
    await run.stageFolder('pairs'),
    {
      network: teacherVelocity(run, teacher),
      texts,
      shape: latentShapeOf(teacher.config),
      prompts,
      firstSeed: 1_000_000,
    },
    options,
  );
  teacher.dispose();
  await run.finish('pairs', { ...options, count: pairs.seeds.length, seconds: (performance.now() - start) / 1000 });
}
