/** Safetensors read by ranges, and written tensor by tensor. */
import type { Bytes } from './bytes.ts';
import { headerLength, parseHeader, safetensorsHead, type Header } from './safetensors.ts';
import { castBytes, castDtype, locate, type FloatDtype, type WeightSource } from './weights.ts';

/** The header alone. */
export async function readSafetensorsHeader(file: Bytes): Promise<Header> {
  const length = headerLength(await file.read(0, Math.min(8, file.size)), file.size, file.name);
  return parseHeader(await file.read(0, 8 + length), file.size, file.name);
}

/** A safetensors file as a source of weights. @throws SafetensorsError for a broken one */
export async function safetensorsSource(file: Bytes): Promise<WeightSource> {
  const { entries, metadata } = await readSafetensorsHeader(file);
  const source: WeightSource = {
    name: file.name,
    entries,
    metadata,
    async read(key, rows) {
      const { begin, end } = locate(source, key, rows);
      return file.read(entries.get(key)!.begin + begin, end - begin);
    },
    close: () => file.close(),
  };
  return source;
}

export interface WriteOptions {
  /** Floating-point tensors become this; left out, all stay what they are. */
  dtype?: FloatDtype;
  metadata?: Readonly<Record<string, string>>;
  /** Told of each tensor that was written: its bytes in the new file, and whether numbers became infinite in F16. */
  progress?: (key: string, bytes: number, overflowed: boolean) => void;
}

/** A source as the parts of a safetensors file, one tensor in memory at a time. */
export async function* sourceChunks(
  source: WeightSource,
  keys: Iterable<string> = source.entries.keys(),
  { dtype, metadata = { format: 'pt', ...source.metadata }, progress }: WriteOptions = {},
): AsyncGenerator<Uint8Array> {
  const kinds = [...keys].map((key) => {
    const { info } = locate(source, key);
    return [key, { ...info, dtype: dtype ? castDtype(info.dtype, dtype) : info.dtype }] as const;
  });
  const { head, order } = safetensorsHead(kinds, metadata);
  yield head;
  for (const key of order) {
    const bytes = await source.read(key);
    const chunk = dtype ? castBytes(key, source.entries.get(key)!, dtype, bytes) : bytes;
    yield chunk;
    progress?.(key, chunk.length, chunk !== bytes && dtype === 'F16' && hasInfinity(chunk));
  }
}

function hasInfinity({ buffer, byteOffset, byteLength }: Uint8Array): boolean {
  return new Uint16Array(buffer, byteOffset, byteLength / 2).some((half) => (half & 0x7fff) === 0x7c00);
}
