import { CLIPTextModel, UNet2DConditionModel } from '../../nn/index.ts';
import { noGrad, scope, tensor } from '../../tensor/index.ts';
import type { Tensor } from '../../tensor/index.ts';
import { join } from 'node:path';
import { BatchSampler } from '../data/loader.ts';
import { pathPoints, flowLoss } from '../rectified-flow.ts';
import { drawTimes } from '../times.ts';
import { trainingNoise } from '../training-noise.ts';
import { batchAt, previewPrompts } from './captions.ts';
import { openTokenizer, saveModule } from './model-folder.ts';
import { sampleSheet } from './preview.ts';
import type { Run } from './run.ts';
import { cachedLatents } from './stage-vae.ts';

/**
 * The teacher: a rectified flow from noise to latents, guided by captions. The text encoder learns with it and is frozen
 * from then on.
 *
 *     min E |v(xt, t, text) − (x1 − x0)|²      t uniform, x0 noise drawn on its own, text dropped now and then
 */
export async function teacherStage(run: Run): Promise<void> {
  const {
    seed,
    data: { specificCaption },
    unet: config,
    textEncoder: textConfig,
    teacher: recipe,
  } = run.recipe;
  const data = await run.data();
  const { latents, shape, size } = await cachedLatents(run);
  const tokenizer = await openTokenizer(join(run.model, 'tokenizer'));
  const textEncoder = new CLIPTextModel({ ...textConfig, vocab_size: tokenizer.vocabSize }).initialize(seed + 1);
  Object.assign(textEncoder.config, {
    bos_token_id: tokenizer.startId,
    eos_token_id: tokenizer.endId,
    pad_token_id: tokenizer.padId,
  });
  const unet = new UNet2DConditionModel(config).initialize(seed + 2);
  unet.gradientCheckpointing = recipe.train.gradientCheckpointing ?? false;
  run.say(
    `teacher: U-Net with ${millions(unet.parameterCount)} parameters, text encoder with ${millions(textEncoder.parameterCount)}`,
  );

  const { batchSize } = recipe.train;
  const sampler = new BatchSampler(data.captions, {
    batchSize,
    seed,
    nullText: recipe.nullText,
    specific: specificCaption,
  });
  const batch = (step: number): Tensor[] => {
    const { indices, captions } = batchAt(sampler, step);
    const x1 = new Float32Array(batchSize * size);
    indices.forEach((image, i) => x1.set(latents.subarray(image * size, (image + 1) * size), i * size));
    const { x0, seen } = trainingNoise(seed, 'teacher noise', step, batchSize, shape, recipe);
    const times = drawTimes({ distribution: 'uniform' }, seed, 'teacher time', step, batchSize);
    const { xt, timesteps } = pathPoints(seen, x1, times);
    const target = x1.map((value, i) => value - x0[i]);
    const { ids } = tokenizer.encodeBatch(captions);
    const all = [batchSize, ...shape];
    return [
      tensor(xt, all),
      unet.timeWaves([...timesteps]),
      tensor(ids, [batchSize, tokenizer.maxLength], { dtype: 'i32' }),
      tensor(target, all),
    ];
  };
  const loss = (xt: Tensor, waves: Tensor, ids: Tensor, target: Tensor): Tensor =>
    flowLoss(unet.forward(xt, waves, textEncoder.forward(ids).lastHiddenState), target);
  const prompts = previewPrompts(
    data.captions.map(([first]) => first),
    run.hooks.validationPrompts,
  );
  const preview = (step: number) =>
    sampleSheet(run, 'teacher', {
      prompts,
      network: unet,
      title: `teacher, step ${step}`,
      columns: [{ steps: 10, guidanceScale: 1.5 }],
      encode: (texts) =>
        noGrad(() =>
          scope(
            () =>
              textEncoder.forward(
                tensor(tokenizer.encodeBatch(texts).ids, [texts.length, tokenizer.maxLength], { dtype: 'i32' }),
              ).lastHiddenState,
          ),
        ),
    });
  const result = await run.train(
    'teacher',
    { name: 'teacher', modules: { text_encoder: textEncoder, unet }, samples: sampler.length, batch, loss, preview },
    recipe.train,
  );
  await saveModule(run.model, 'text_encoder', textEncoder, 'CLIPTextModel');
  await saveModule(run.model, 'unet_teacher', unet, 'UNet2DConditionModel');
  await preview(result.step);
  textEncoder.dispose();
  unet.dispose();
  await run.finish('teacher', { ...result });
}

const millions = (n: number): string => `${(n / 1e6).toFixed(2)} M`;
