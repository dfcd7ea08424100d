import { mse } from '../../tensor/index.ts';
import { UNet2DConditionModel } from '../../nn/index.ts';
import { actChecks, gradientChecks, inputGradient, loadRule, ours, theirs, watch } from './networks-common.ts';
import { tolerance, type Runner } from './runner.ts';

/** A U-Net with weights from the rule: output, every block, the gradients of all parameters and inputs. */
export const runUnet: Runner = async (c, context) => {
  await context.gpu();
  const file = await context.tensors(c);
  const { acts: stats, grads } = await context.json(c.json!);
  using model = await loadRule(() => new UNet2DConditionModel(c.config), c.weights);
  model.requiresGrad(true);
  const sample = ours(file['in.sample'], { requiresGrad: true });
  const text = ours(file['in.encoder_hidden_states'], { requiresGrad: true });
  const times = Array.from(file['in.timestep'].data);
  const embeds = file['in.text_embeds'] && ours(file['in.text_embeds'], { requiresGrad: true });
  const ids = file['in.time_ids'];
  const rows =
    ids &&
    Array.from({ length: ids.shape[0] }, (_, b) =>
      Array.from(ids.data.subarray(b * ids.shape[1], (b + 1) * ids.shape[1])),
    );
  const added = embeds && { textEmbeds: embeds, timeIds: rows };

  const { result: out, acts } = watch(model, stats, () => model.forward(sample, times, text, added));
  const loss = mse(out, ours(file['in.target']));
  const limit = tolerance(c, 'out'),
    gradLimit = tolerance(c, 'grad');
  const checks = await actChecks(acts, stats, limit);
  checks.push({ name: 'sample', got: await theirs(out), want: file['out.sample'].data, tolerance: limit });
  checks.push({ name: 'loss', got: [await loss.item()], want: [c.loss], tolerance: limit });
  loss.backward();
  checks.push(...(await inputGradient('sample', sample, c, file, gradLimit)));
  checks.push(...(await inputGradient('encoder_hidden_states', text, c, file, gradLimit)));
  if (embeds) checks.push(...(await inputGradient('text_embeds', embeds, c, file, gradLimit)));
  checks.push(...(await gradientChecks(model, c, file, grads, gradLimit)));
  return checks;
};
