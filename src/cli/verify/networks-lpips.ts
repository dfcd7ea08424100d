import { sum } from '../../tensor/index.ts';
import { LPIPS } from '../../nn/index.ts';
import { statsChecks } from './compare.ts';
import { loadRule, ours, theirs } from './networks-common.ts';
import { tolerance, type Check, type Runner } from './runner.ts';

/** The perceptual distance with weights from the rule: features, the distance of every slice, gradients of both images. */
export const runLpips: Runner = async (c, context) => {
  await context.gpu();
  const file = await context.tensors(c);
  const { taps_x0: taps } = await context.json(c.json!);
  using model = await loadRule(() => new LPIPS(c.net), c.weights);
  const parameters = model.namedParameters();
  const checks: Check[] = (c.params as [string, number[]][]).map(([key, shape]) => ({
    name: `shape of ${key}`,
    got: [...(parameters.get(key)?.checkpointShape ?? [])],
    want: shape,
    tolerance: 0,
  }));
  checks.push({ name: 'number of parameters', got: [parameters.size], want: [c.params.length], tolerance: 0 });
  const x0 = ours(file['in.x0'], { requiresGrad: true }),
    x1 = ours(file['in.x1'], { requiresGrad: true });
  const limit = tolerance(c, 'out');
  for (const [l, features] of model.features(x0).entries()) {
    checks.push(...statsChecks(`tap${l}`, await theirs(features), taps[`tap${l}`], limit));
  }
  const slices = model.perSlice(x0, x1);
  const each = await Promise.all(slices.map((d) => d.read()));
  checks.push({
    name: 'per_layer',
    got: each.flatMap((d) => [...d]),
    want: file['out.per_layer'].data,
    tolerance: limit,
  });
  const value = model.forward(x0, x1);
  checks.push({ name: 'value', got: await value.read(), want: file['out.value'].data, tolerance: limit });
  sum(value).backward();
  for (const [name, x] of Object.entries({ x0, x1 })) {
    const want = file[`grad.in.${name}`].data;
    checks.push({ name: `grad.in.${name}`, got: await theirs(x.grad!), want, tolerance: tolerance(c, 'grad') });
  }
  return checks;
};
