/** Files of weights on disk (Node only): safetensors, shards, and what `torch.save` writes, told apart by their bytes. */
import { readdir, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { Bytes } from './bytes.ts';
import { openBytes, readBytes, writeAtomic } from './files-node.ts';
import { safetensorsSource, sourceChunks, type WriteOptions } from './safetensors-source.ts';
import { packShards, parseIndex, shardedSource, shardName } from './shards.ts';
import { legacyMagic, torchSource } from './torch-source.ts';
import { byteLength, castDtype, WeightsError, type WeightSource } from './weights.ts';

/** Open a file of weights, or the index of a set of them. Only what describes the tensors is read. */
export async function openWeights(path: string): Promise<WeightSource> {
  if (/\.index(\.[\w-]+)?\.json$/.test(path)) {
    const index = parseIndex(new TextDecoder().decode(await readBytes(path)), path);
    return shardedSource(path, index, (file) => openWeights(join(dirname(path), file)));
  }
  const file = await openBytes(path);
  try {
    return await openByContent(file);
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function openByContent(file: Bytes): Promise<WeightSource> {
  const first = await file.read(0, Math.min(64, file.size));
  const starts = (bytes: ArrayLike<number>) => Array.from(bytes).every((byte, i) => first[i] === byte);
  const says = (text: string) => starts(new TextEncoder().encode(text));
  if (first[8] === 0x7b) return safetensorsSource(file); // the header's '{'
  if (starts([0x50, 0x4b]) || starts(legacyMagic)) return torchSource(file);
  const other =
    (says('version https://git-lfs') && 'a pointer of Git LFS, not the weights\n  fetch them with: git lfs pull') ||
    (/^\s*<(!doctype|html)/i.test(new TextDecoder().decode(first)) && 'a web page, not weights\n  download it again') ||
    (says('GGUF') && 'a GGUF file, which is not read here\n  give safetensors, .ckpt, .bin or .pt') ||
    (starts([0x89, 0x48, 0x44, 0x46]) &&
      'an HDF5 file, which is not read here\n  give safetensors, .ckpt, .bin or .pt') ||
    (first[0] === 0x80 && first[1] <= 5 && 'a bare pickle, which torch.save does not write');
  if (other) throw new WeightsError(`${file.name}: ${other}`);
  return safetensorsSource(file);
}

/** What diffusers and transformers call the weights of a component. */
const stems = ['diffusion_pytorch_model', 'model', 'pytorch_model'];

/**
 * The weights in a component's folder (unet/, vae/, text_encoder/): safetensors before .bin, one file before shards.
 * `variant` 'fp16' prefers diffusion_pytorch_model.fp16.safetensors; where there is only a variant, it is taken.
 * @throws WeightsError naming what the folder has instead
 */
export async function findWeights(folder: string, { variant }: { variant?: string } = {}): Promise<string> {
  const files = await readdir(folder).catch(() => [] as string[]);
  const candidates = (variant?: string) => {
    const dot = variant ? `.${variant}` : '';
    return ['safetensors', 'bin'].flatMap((kind) =>
      stems.flatMap((stem) => [`${stem}${dot}.${kind}`, `${stem}.${kind}.index${dot}.json`]),
    );
  };
  const variants = [...new Set(files.flatMap((file) => /^\w+\.(\w+)\.(?:safetensors|bin)$/.exec(file)?.[1] ?? []))];
  const wanted = [...(variant ? candidates(variant) : []), ...candidates(), ...variants.flatMap(candidates)];
  const found = wanted.find((name) => files.includes(name));
  if (!found) {
    throw new WeightsError(
      `${folder}: no weights\n  it has: ${files.slice(0, 12).join(', ') || 'nothing'}\n  wanted: ${candidates().slice(0, 2).join(', ')}, …`,
    );
  }
  return join(folder, found);
}

/** Write a source as one safetensors file, tensor by tensor; beside the target, then renamed. */
export function saveWeights(path: string, source: WeightSource, options: WriteOptions = {}): Promise<void> {
  return writeAtomic(path, sourceChunks(source, source.entries.keys(), options));
}

/**
 * Write a source as safetensors files of at most `limit` bytes of tensors, with their index, which comes last. Where all
 * fits into one file, that is all there is.
 * @returns the names of the files
 */
export async function saveShards(
  path: string,
  source: WeightSource,
  limit: number,
  options: WriteOptions = {},
): Promise<string[]> {
  const { dtype } = options;
  const sizes = [...source.entries].map(
    ([key, info]) => [key, byteLength({ ...info, dtype: dtype ? castDtype(info.dtype, dtype) : info.dtype })] as const,
  );
  const groups = packShards(sizes, limit);
  const stem = basename(path).replace(/\.safetensors$/, '');
  const index = join(dirname(path), `${stem}.safetensors.index.json`);
  if (groups.length < 2) {
    await saveWeights(path, source, options);
    await rm(index, { force: true });
    return [basename(path)];
  }
  const names = groups.map((_, i) => shardName(stem, i + 1, groups.length));
  for (const [i, keys] of groups.entries()) {
    await writeAtomic(join(dirname(path), names[i]), sourceChunks(source, keys, options));
  }
  const map = groups.flatMap((keys, i) => keys.map((key) => [key, names[i]]));
  const metadata = { total_size: sizes.reduce((sum, [, bytes]) => sum + bytes, 0) };
  await writeAtomic(index, `${JSON.stringify({ metadata, weight_map: Object.fromEntries(map) }, undefined, 2)}\n`);
  return [...names, basename(index)];
}
