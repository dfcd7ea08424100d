/** Which files of a model are read, by their names alone: of a repository on the hub, or of what is here of it. */

/** The files of a repository do not make a model, or not the one that was asked for. */
export class ModelFilesError extends Error {
  override name = 'ModelFilesError';
}

/** What of a repository is wanted. */
export interface ModelFilesOptions {
  /** 'fp16' takes unet/diffusion_pytorch_model.fp16.safetensors, where there is one. */
  variant?: string;
  /** Also the safety checker, with its feature extractor. */
  safetyChecker?: boolean;
  /** This file alone: a whole model in one file, or a LoRA. */
  file?: string;
}

/** What is read of a model. */
export interface ModelFiles {
  files: string[];
  /** The file that is the model; absent when it is the folder. */
  file?: string;
  /** False where another variant stands in for the one wanted: a repository may have more than what is here of it. */
  exact: boolean;
}

/** What pipelines name and we read only when asked. */
const optional = ['safety_checker', 'feature_extractor', 'image_encoder'];

/**
 * Weights as safetensors rather than pickles, in the wanted variant; configurations and vocabularies.
 *
 * `index` is model_index.json, when there is one: it names the parts, each a folder. Without it, a repository is one
 * network (config.json and weights at its root) or one file of weights.
 * @throws ModelFilesError when a part has no weights, or nothing here is a model
 */
export function modelFiles(
  files: readonly string[],
  index: Record<string, unknown> | undefined,
  { variant, safetyChecker = false, file }: ModelFilesOptions = {},
): ModelFiles {
  const depth = (name: string) => name.split('/').length;
  const single = files
    .filter((name) => /\.(safetensors|ckpt|bin|pt|pth)$/.test(name))
    .sort((a, b) => depth(a) - depth(b)); // whole models lie at the top
  if (file !== undefined) {
    if (!files.includes(file))
      throw new ModelFilesError([`no file ${file}`, ...list('files of weights', single)].join('\n  '));
    return { files: [file], file, exact: true };
  }
  const parts = index ? partsOf(index).filter((part) => safetyChecker || !optional.includes(part)) : [''];
  const chosen = parts.map((part) => filesOf(part, files, variant));
  if (!index && chosen[0].weights.length === 0) {
    const [only, ...others] = single.filter((name) => !name.includes('/'));
    if (only && others.length === 0) return { files: [only], file: only, exact: true };
    const fix = only ? [`name one of them, as in owner/name/${only}`] : [];
    throw new ModelFilesError(['no model_index.json', ...list('files of weights', single), ...fix].join('\n  '));
  }
  const empty = parts.filter((part, i) => !chosen[i].complete);
  if (empty.length > 0)
    throw new ModelFilesError(`not a whole model\n  missing: ${empty.map((p) => p || 'weights').join(', ')}`);
  const variants = new Set(chosen.map((one) => one.variant));
  if (variant && !variants.has(variant)) {
    const known = [...new Set(files.map((name) => weightsName(name.split('/').at(-1)!)?.variant))].filter(Boolean);
    throw new ModelFilesError(
      `no weights of variant ${variant}\n  ${known.length ? `there are: ${known.join(', ')}` : 'there is only one'}`,
    );
  }
  return {
    files: [...(index ? ['model_index.json'] : []), ...chosen.flatMap((one) => [...one.texts, ...one.weights])],
    exact: chosen.every((one) => one.weights.length === 0 || one.variant === variant),
  };
}

/** Folders that model_index.json names: "unet": ["diffusers", "UNet2DConditionModel"], but not [null, null]. */
function partsOf(index: Record<string, unknown>): string[] {
  const isPart = ([, value]: [string, unknown]) => Array.isArray(value) && typeof value[1] === 'string';
  return Object.entries(index)
    .filter(isPart)
    .map(([name]) => name);
}

interface Part {
  texts: string[];
  weights: string[];
  variant?: string;
  complete: boolean;
}

function filesOf(part: string, files: readonly string[], variant?: string): Part {
  const prefix = part && `${part}/`;
  const names = files.filter((file) => file.startsWith(prefix)).map((file) => file.slice(prefix.length));
  const texts = names.filter((name) => /^[\w-]+\.(json|txt|model)$/.test(name) && name !== 'model_index.json');
  const set = chooseWeights(names, variant);
  const has = (...wanted: string[]) => wanted.every((name) => names.includes(name));
  const complete = /^tokenizer(_\d)?$/.test(part)
    ? has('tokenizer.json') || has('vocab.json', 'merges.txt') || has('spiece.model')
    : part === 'scheduler'
      ? has('scheduler_config.json')
      : /^(feature_extractor|image_processor)$/.test(part)
        ? has('preprocessor_config.json')
        : has('config.json') && set !== undefined;
  const full = (list: string[]) => list.map((name) => prefix + name);
  return { texts: full(texts), weights: full(complete ? (set?.files ?? []) : []), variant: set?.variant, complete };
}

interface WeightsName {
  format: 'safetensors' | 'bin';
  variant?: string;
  /** Of a shard: its number, and how many there are. */
  shard?: [number, number];
}

/** 'model.fp16-00001-of-00002.safetensors' and its kin; undefined for other files. */
function weightsName(name: string): WeightsName | undefined {
  const match =
    /^(?:diffusion_pytorch_model|pytorch_model|model)(?:\.([\w-]+?))?(?:-(\d{5})-of-(\d{5}))?(?:\.([\w-]+))?\.(safetensors|bin)$/.exec(
      name,
    );
  if (!match) return undefined;
  const [, before, number, of, after, format] = match;
  return {
    format: format as WeightsName['format'],
    variant: before ?? after,
    ...(number ? { shard: [Number(number), Number(of)] } : {}),
  };
}

/** The best set of weights that is whole: wanted variant, then plain, then fp16, then any; safetensors before pickles. */
function chooseWeights(names: string[], wanted?: string): { files: string[]; variant?: string } | undefined {
  const sets = new Map<string, { format: string; variant?: string; shards: number; files: string[] }>();
  for (const name of names) {
    const parsed = weightsName(name);
    if (!parsed) continue;
    const { format, variant, shard } = parsed;
    const key = [format, variant, shard?.[1]].join(' ');
    const set = sets.get(key) ?? { format, variant, shards: shard?.[1] ?? 0, files: [] };
    sets.set(key, { ...set, files: [...set.files, name] });
  }
  const whole = [...sets.values()].filter(({ files, shards }) => files.length === Math.max(1, shards));
  const order = [wanted, undefined, 'fp16'];
  const rank = ({ variant, format, shards }: (typeof whole)[number]) =>
    10 * (order.includes(variant) ? order.indexOf(variant) : order.length) +
    (format === 'bin' ? 5 : 0) +
    (shards > 0 ? 1 : 0);
  for (const set of whole.sort((a, b) => rank(a) - rank(b))) {
    if (set.shards === 0) return set;
    const dot = set.variant ? `.${set.variant}` : '';
    const index = names.find((name) => /^[a-z_]+\./.test(name) && name.endsWith(`.${set.format}.index${dot}.json`));
    if (index) return { ...set, files: [index, ...set.files] };
  }
  return undefined;
}

const list = (what: string, names: string[]): string[] =>
  names.length === 0
    ? [`no ${what} either`]
    : [`${what}: ${names.slice(0, 8).join(', ')}${names.length > 8 ? ', …' : ''}`];
