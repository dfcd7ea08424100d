import { add, mse } from '../../tensor/index.ts';
import { CLIPTextModel } from '../../nn/index.ts';
import { gradientChecks, loadRule, ours, theirs } from './networks-common.ts';
import { tolerance, type Check, type Runner } from './runner.ts';

/** A text encoder with weights from the rule: every layer, the pooled vector, the gradients of all parameters. */
export const runClip: Runner = async (c, context) => {
  await context.gpu();
  const file = await context.tensors(c);
  const { grads } = await context.json(c.json!);
  const projection = /WithProjection/.test(c.class);
  using model = await loadRule(() => new CLIPTextModel(c.config, { projection }), c.weights);
  model.requiresGrad(true);
  const {
    shape: [B, T],
    data,
  } = file['in.input_ids'];
  const ids = Array.from({ length: B }, (_, b) => data.subarray(b * T, (b + 1) * T));

  const { lastHiddenState, hiddenStates } = model.forward(ids);
  const pooled = model.pool(lastHiddenState, ids);
  const outputs: Record<string, any> = {
    ...Object.fromEntries(hiddenStates.map((h, i) => [`hidden_states.${i}`, h])),
    last_hidden_state: lastHiddenState,
    penultimate_final_ln: model.text_model.final_layer_norm.forward(hiddenStates.at(-2)!),
    pooler_output: pooled,
    text_embeds: projection ? model.project(pooled) : undefined,
  };
  const limit = tolerance(c, 'out');
  const checks: Check[] = [];
  for (const [name, output] of Object.entries(outputs)) {
    const want = file[`out.${name}`];
    if (want) checks.push({ name, got: await theirs(output), want: want.data, tolerance: limit });
  }
  let loss = mse(lastHiddenState, ours(file['in.target']));
  if (projection) loss = add(loss, mse(outputs.text_embeds, ours(file['in.ptarget'])));
  checks.push({ name: 'loss', got: [await loss.item()], want: [c.loss], tolerance: limit });
  loss.backward();
  checks.push(...(await gradientChecks(model, c, file, grads, tolerance(c, 'grad'))));
  return checks;
};
