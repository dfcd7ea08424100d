import { AutoencoderKL, CLIPTextModel, outlineOf, UNet2DConditionModel, type Module } from '../../nn/index.ts';
import { clipKeys, openClipKeys } from '../../nn/single-file/clip.ts';
import { families } from '../../nn/single-file/model.ts';
import type { KeyMap, KeyRow } from '../../nn/single-file/rows.ts';
import { unetKeys } from '../../nn/single-file/unet.ts';
import { vaeKeys } from '../../nn/single-file/vae.ts';
import { Skip, type Check, type Context, type GoldenCase, type Runner } from './runner.ts';

/** Keys and shapes of full-size models, and where their tensors are in single-file checkpoints. */
export const runKeys: Runner = async (c, context) => {
  if (c.kind === 'keymap') return mapChecks(c, (await context.json(c.json!)).map);
  if (c.kind === 'keymap_rule') return prefixChecks(c, context);
  const make = models[c.class];
  if (c.kind !== 'keys' || !make) throw new Skip(`no ${c.class ?? c.kind} here`);
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

const maps: Record<string, KeyMap> = {
  map_sd15_unet: unetKeys,
  map_sdxl_base_unet: unetKeys,
  map_sdxl_refiner_unet: unetKeys,
  map_vae: vaeKeys,
  map_openclip_bigg: openClipKeys,
};

/** [single-file key, key of diffusers, what is done to it] */
type Row = [single: string, diffusers: string, op?: string];

/** Both ways, every row of the other list and no more; keys that have no counterpart stay without one. */
function mapChecks(c: GoldenCase, rows: Row[]): Check[] {
  const map = maps[c.id.split('/')[1]];
  if (!map) throw new Skip(`no map for ${c.id}`);
  const width = Math.max(...rows.flatMap(([, , op]) => Number(/^rows 0:(\d+)/.exec(op ?? '')?.[1] ?? 0)));
  const singles = [...new Set(rows.map(([single]) => single)), ...c.unmapped_single_file_keys];
  const prefixes = Object.values(families).flatMap((parts) =>
    Object.values(parts).flatMap((place) => (place.map === map ? [place.prefix] : [])),
  );
  const foreign = prefixes.filter((prefix) => !c.single_file_prefix.includes(prefix));
  if (foreign.length) throw new Error(`prefix ${foreign.join(', ')}, not ${c.single_file_prefix}`);
  return [
    sameRows('from the single file', map.fromSingle(singles), rows, width),
    sameRows('from diffusers', map.fromDiffusers(rows.map(([, key]) => key)), rows, width),
  ];
}

function sameRows(name: string, got: KeyRow[], want: Row[], width: number): Check {
  const texts = new Set(want.map((row) => row.join(' ')));
  const ours = got.map(({ single, diffusers, op }) =>
    [single, diffusers, ...(op ? [opName(op, width)] : [])].join(' '),
  );
  const wrong = ours.filter((row) => !texts.delete(row));
  if (wrong.length) throw new Error(`${name}: ${wrong.length} rows differ, such as ${wrong[0]}`);
  if (texts.size) throw new Error(`${name}: ${texts.size} rows are missing, such as ${[...texts][0]}`);
  return { name, got: [ours.length], want: [want.length], tolerance: 0 };
}

const opName = (op: NonNullable<KeyRow['op']>, width: number): string =>
  typeof op === 'string' ? op : `rows ${op.third * width}:${(op.third + 1) * width}`;

/** Only a prefix differs; the table of positions is no weight. */
async function prefixChecks(c: GoldenCase, context: Context): Promise<Check[]> {
  const prefixes = [families.sd1.text_encoder!.prefix, families.sdxl.text_encoder!.prefix];
  for (const prefix of prefixes) {
    if (!c.rule.includes(`${prefix}<key>`)) throw new Error(`prefix ${prefix} is not in the rule: ${c.rule}`);
  }
  const { keys } = (await context.json('keys/sd15_text_encoder.json')) as { keys: [string, number[]][] };
  const weights = keys.flatMap(([key]) => (key.endsWith('.position_ids') ? [] : [key]));
  const rows = weights.map((key): Row => [key, key]);
  const all = ['text_model.embeddings.position_ids', ...weights];
  return [
    sameRows('from the single file', clipKeys.fromSingle(all), rows, 0),
    sameRows('from diffusers', clipKeys.fromDiffusers(all), rows, 0),
  ];
}
