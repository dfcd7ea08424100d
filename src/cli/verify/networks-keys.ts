import { AutoencoderKL, CLIPTextModel, outlineOf, UNet2DConditionModel, type Module } from '../../nn/index.ts';
import { Skip, type Check, type GoldenCase, type Runner } from './runner.ts';

/** Keys and shapes of full-size models. */
export const runKeys: Runner = async (c, context) => {
  const make = models[c.class];
  if (c.kind !== 'keys' || !make) throw new Skip(`reads no single-file checkpoints yet: ${c.kind}`);
  await context.gpu();
  const all = (await context.json(c.json!)) as { keys: [string, number[]][] };
  const keys = all.keys.filter(([key]) => !key.endsWith('.position_ids')); // a table, not a weight
  const parameters = outlineOf(() => make(c)).namedParameters();
  const extra = [...parameters.keys()].filter((key) => !keys.some(([name]) => name === key));
  if (extra.length) throw new Error(`keys that diffusers does not have: ${extra.slice(0, 5).join(', ')}`);
  const total = [...parameters.values()].reduce((n, p) => n + p.size, 0);
  const checks: Check[] = keys.map(([key, shape]) => ({
    name: `shape of ${key}`,
    got: [...(parameters.get(key)?.checkpointShape ?? [])],
    want: shape,
    tolerance: 0,
  }));
  return [...checks, { name: 'number of parameters', got: [total], want: [c.n_params], tolerance: 0 }];
};

const models: Record<string, (c: GoldenCase) => Module> = {
  UNet2DConditionModel: (c) => new UNet2DConditionModel(c.config),
  AutoencoderKL: (c) => new AutoencoderKL(c.config),
  CLIPTextModel: (c) => new CLIPTextModel(c.config),
  CLIPTextModelWithProjection: (c) => new CLIPTextModel(c.config, { projection: true }),
};
