/**
 * What fine-tuning changed, added to another model of the same origin: InstaFlow's way to use the fine-tuned Stable
 * Diffusion models that there are.
 *
 *     W ← W_flow + α (W_finetuned − W_base)        for every tensor of the U-Net
 *
 * The text encoder and the VAE are those of the fine-tuned model.
 * @see Liu et al. 2023, InstaFlow. https://arxiv.org/abs/2309.06380, and LoRA in the authors' code
 */
import type { Rows, WeightInfo, WeightSource } from '../tensor/io/weights.ts';
import { readFloat32, WeightsError } from '../tensor/io/weights.ts';
import type { PartName, Parts } from './single-file/model.ts';

export interface DeltaOptions {
  /** How much of the change: 1 when not given. */
  alpha?: number;
}

/** A rectified flow, a model that was fine-tuned, and the one that both began as. */
export interface DeltaModels {
  flow: Parts;
  finetuned: Parts;
  /** Only its U-Net is read. */
  base: Parts;
}

/**
 * The parts of the flow with the change of the fine-tuned model; nothing is read yet. To load, or to save as a model.
 * @throws WeightsError when a part is missing, or the U-Nets differ in keys or shapes
 */
export function deltaParts({ flow, finetuned, base }: DeltaModels, options: DeltaOptions = {}): Parts {
  const unets = [flow, finetuned, base].map((parts, i) => {
    if (!parts.unet) throw new WeightsError(`${names[i]}: there is no unet`);
    return parts.unet;
  });
  const replaced = (['text_encoder', 'text_encoder_2', 'vae'] as PartName[]).filter((part) => flow[part]);
  const missing = replaced.filter((part) => !finetuned[part]);
  if (missing.length) {
    throw new WeightsError(
      `${unets[1].name}: the fine-tuned model has no ${missing.join(', no ')}\n  its own go with its U-Net: give a whole model`,
    );
  }
  return {
    ...Object.fromEntries(replaced.map((part) => [part, finetuned[part]])),
    unet: deltaWeights(unets[0], unets[1], unets[2], options),
  };
}

const names = ['the flow', 'the fine-tuned model', 'the model that both began as'];

/**
 * One network. What it reads of a tensor (all, or some rows), it reads of each of the three, and keeps nothing. Sums are in
 * f64 and rounded to f32 once.
 * @throws WeightsError with all keys and shapes that differ
 */
export function deltaWeights(
  flow: WeightSource,
  finetuned: WeightSource,
  base: WeightSource,
  { alpha = 1 }: DeltaOptions = {},
): WeightSource {
  if (!Number.isFinite(alpha)) throw new RangeError(`deltaWeights: alpha is ${alpha}`);
  const sources = [flow, finetuned, base];
  compare(sources);
  return {
    name: `${flow.name} + ${alpha} · (${finetuned.name} − ${base.name})`,
    metadata: flow.metadata,
    entries: new Map([...flow.entries].map(([key, { shape }]): [string, WeightInfo] => [key, { dtype: 'F32', shape }])),
    async read(key: string, rows?: Rows) {
      const { data } = await readFloat32(flow, key, rows);
      const { data: tuned } = await readFloat32(finetuned, key, rows);
      const { data: before } = await readFloat32(base, key, rows);
      for (let i = 0; i < data.length; i++) data[i] += alpha * (tuned[i] - before[i]);
      return new Uint8Array(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength);
    },
    async close() {
      for (const source of sources) await source.close();
    },
  };
}

/** Every key in all three, with one shape but for ones at the end: projections are matrices in some files. */
function compare(sources: readonly WeightSource[]): void {
  const plain = (info?: WeightInfo) => info && info.shape.join().replace(/(,1)+$/, '');
  const keys = new Set(sources.flatMap(({ entries }) => [...entries.keys()]));
  const differ = [...keys].filter((key) => {
    const [first, ...rest] = sources.map(({ entries }) => plain(entries.get(key)));
    return first === undefined || rest.some((shape) => shape !== first);
  });
  if (!differ.length) return;
  const shapes = (key: string) =>
    sources.map(({ entries }) => (entries.has(key) ? `[${entries.get(key)!.shape.join(', ')}]` : 'missing')).join('  ');
  throw new WeightsError(
    [
      'these U-Nets are not of one origin: a change of one means nothing to another',
      ...sources.map(({ name }, i) => `  ${names[i]}: ${name}`),
      ...differ.slice(0, 12).map((key) => `  ${key}  ${shapes(key)}`),
      ...(differ.length > 12 ? [`  … and ${differ.length - 12} more`] : []),
    ].join('\n'),
  );
}
