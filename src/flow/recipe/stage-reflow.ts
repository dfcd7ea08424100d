import type { Tensor } from '../../tensor/index.ts';
import type { Points } from '../objectives.ts';
import { previewPrompts } from './captions.ts';
import { sampleSheet } from './preview.ts';
import { pairLesson, windowLesson } from './reflow-lesson.ts';
import type { Run } from './run.ts';
import { openStudent, saveNetwork, teacherVelocity } from './student.ts';

/**
 * Text-conditioned reflow: train the flow again, between each noise and what the teacher made of it. Its paths no longer
 * cross, so they come out straight, and guidance is built in.
 *
 *     min E |v(xt, t, text) − (x1 − x0)|²      x1 = ODE[teacher](x0 | text), xt between the two
 *
 * With `windows`, the same in each window of time by itself: see piecewise.ts.
 * @see Liu et al. 2023, InstaFlow, eq. 5. https://arxiv.org/abs/2309.06380
 */
export async function reflowStage(run: Run): Promise<void> {
  const { predicts, negateEpsilon, windows, train } = run.recipe.reflow;
  const unet = await openStudent(run, 'unet_teacher', { negate: negateEpsilon && predicts !== 'epsilon' });
  unet.gradientCheckpointing = train.gradientCheckpointing ?? false;
  using lesson = await (windows ? windowLesson : pairLesson)(run, unet);
  const prompts = previewPrompts(lesson.prompts, run.hooks.validationPrompts);
  const preview = (step: number) =>
    sampleSheet(run, 'reflow', {
      prompts,
      network: unet,
      velocity: predicts === 'epsilon' ? teacherVelocity(run, unet) : undefined,
      title: `after reflow, step ${step}`,
      encode: (list) => lesson.texts.batch(list),
      columns: [1, windows && windows > 1 ? windows : 2, 25].map((steps) => ({ steps, guidanceScale: 1 })),
    });
  const result = await run.train(
    'reflow',
    {
      ...{ name: 'reflow', modules: { unet }, samples: lesson.samples, preview },
      batch: (step) => lesson.batch(step),
      loss: (text: Tensor, ...points: Tensor[]) =>
        lesson.loss(unet.forward(points[0], points[1], text), points as unknown as Points),
    },
    train,
  );
  await saveNetwork(run, 'unet_reflow', unet);
  await preview(result.step);
  unet.dispose();
  await run.finish('reflow', { ...result, ...lesson.facts });
}
