/** Tensors whose numbers are not in order in the file: transposed, channels-last, parts of others. */
import type { Bytes } from './bytes.ts';

interface Strided {
  /** Of the first number, in numbers. */
  offset: number;
  shape: readonly number[];
  strides: readonly number[];
}

/** An axis: how many, how far apart in the file, how far apart in the result. */
interface Axis {
  size: number;
  from: number;
  to: number;
}

/** Bytes of the file held at a time while numbers are put in order. */
const PIECE = 16 << 20;

/** Row-major bytes of a strided tensor in a storage that begins at byte `start`. `width`: bytes of one number. */
export async function readStrided(
  file: Bytes,
  start: number,
  width: number,
  { offset, shape, strides }: Strided,
): Promise<Uint8Array<ArrayBuffer>> {
  const axes: Axis[] = [];
  let count = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    if (shape[i] !== 1) axes.unshift({ size: shape[i], from: strides[i], to: count });
    count *= shape[i];
  }
  if (count === 0) return new Uint8Array(0);
  if (axes.every(({ from, to }) => from === to)) return file.read(start + offset * width, count * width);

  const out = new Uint8Array(count * width);
  const gather = async (axes: Axis[], from: number, to: number): Promise<void> => {
    const span = spanOf(axes);
    if (span * width <= PIECE || axes.length === 0) {
      const piece = await file.read(start + from * width, span * width);
      return scatter(words(piece, width), words(out, width), axes, 0, to);
    }
    const [first, ...rest] = axes;
    const step = Math.max(1, Math.floor((PIECE / width - spanOf(rest)) / first.from));
    for (let i = 0; i < first.size; i += step) {
      const size = Math.min(step, first.size - i);
      await gather(size > 1 ? [{ ...first, size }, ...rest] : rest, from + i * first.from, to + i * first.to);
    }
  };
  await gather(
    axes.sort((a, b) => b.from - a.from),
    offset,
    0,
  ); // in the order of the file
  return out;
}

/** Numbers from the first to the last. */
const spanOf = (axes: Axis[]): number => axes.reduce((sum, { size, from }) => sum + (size - 1) * from, 1);

type Words = Uint8Array | Uint16Array | Uint32Array | BigUint64Array;

function words({ buffer, byteLength }: Uint8Array<ArrayBuffer>, width: number): Words {
  const type = { 1: Uint8Array, 2: Uint16Array, 4: Uint32Array, 8: BigUint64Array }[width]!;
  return new type(buffer, 0, byteLength / width);
}

function scatter(piece: Words, out: Words, axes: Axis[], from: number, to: number): void {
  if (axes.length === 0) {
    out[to] = piece[from];
    return;
  }
  const [first, ...rest] = axes;
  if (rest.length === 0) for (let i = 0; i < first.size; i++) out[to + i * first.to] = piece[from + i * first.from];
  else for (let i = 0; i < first.size; i++) scatter(piece, out, rest, from + i * first.from, to + i * first.to);
}
