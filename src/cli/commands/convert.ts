import { convertModel, type Progress } from '../../flow/recipe/convert-model.ts';
import { findConfigs } from '../../flow/recipe/hub-model.ts';
import type { FloatDtype } from '../../tensor/io/weights.ts';
import { choice, command, flag, positional, required, text, UsageError } from '../command.ts';
import { modelPath } from '../model-path.ts';

export default command(
  'convert',
  'models between layouts (diffusers folder, single file, shards), formats and dtypes',
  {
    input: positional(
      text(
        required,
        'diffusers folder, folder of one part, .safetensors, .ckpt, .bin, .pt, .index.json, or owner/name on the hub',
      ),
    ),
    output: positional(text(required, 'file.safetensors, or a folder')),
    dtype: choice(undefined, ['f32', 'f16', 'bf16'], 'of the floating-point weights (as they are)'),
    variant: text(undefined, 'which weights of a folder with several: fp16'),
    max_shard_size: text(undefined, 'split larger files: 5GB, 500MB'),
    config: text(
      undefined,
      'diffusers folder, or owner/name, to copy configurations, tokenizers and the scheduler from',
    ),
    overwrite: flag(false, 'replace the output'),
  },
  async ({ input, output, dtype, variant, max_shard_size: size, config, overwrite }) => {
    const started = performance.now();
    const done = await convertModel(await modelPath(input, { variant }), output, {
      dtype: dtype?.toUpperCase() as FloatDtype | undefined,
      variant,
      maxShardSize: size === undefined ? undefined : parseSize(size),
      config: config && (await findConfigs(config, { vocabularies: true })),
      overwrite,
      progress: process.stderr.isTTY ? showProgress : undefined,
    });
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    console.log(`${output}: ${done.what}, ${done.tensors} tensors, ${mib(done.bytes)}, ${seconds} s`);
    note('have no place there and were left out', done.left);
    note('have numbers beyond 65504, which are infinite in f16: use bf16 or f32', done.infinite);
    note('could not be made: give --config <diffusers folder> to copy it from', done.lacking);
  },
);

function note(what: string, names: string[]): void {
  if (!names.length) return;
  const more = names.length > 5 ? `, … (${names.length})` : '';
  console.error(`note: ${names.slice(0, 5).join(', ')}${more} ${what}`);
}

function showProgress({ key, done, total }: Progress): void {
  const line = `${((100 * done) / total).toFixed(0).padStart(3)} %  ${mib(done)} of ${mib(total)}  ${key}`;
  process.stderr.write(
    `\r\x1b[K${line.slice(0, (process.stderr.columns ?? 80) - 1)}${done === total ? '\r\x1b[K' : ''}`,
  );
}

const mib = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)} MiB`;

/** "5GB", "500MB": powers of ten, as diffusers counts. */
function parseSize(text: string): number {
  const found = /^(\d+(?:\.\d+)?)\s*(KB|MB|GB)$/i.exec(text);
  if (!found) throw new UsageError(`--max_shard_size must be a size such as 5GB or 500MB, not "${text}"`);
  return Number(found[1]) * { KB: 1e3, MB: 1e6, GB: 1e9 }[found[2].toUpperCase() as 'KB']!;
}
