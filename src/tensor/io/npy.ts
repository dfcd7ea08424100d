/**
 * NumPy's file of one array, as `numpy.save` writes it and `numpy.load` reads it.
 *
 *     6 bytes     \x93NUMPY
 *     2 bytes     version: 1 0
 *     u16         length of the header, little-endian
 *     header      {'descr': '<f2', 'fortran_order': False, 'shape': (4, 64, 64), }, blanks and a newline up to a multiple of 64
 *     data        row-major, little-endian
 *
 * @see https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
 */
import { viewOf } from './bytes.ts';
import { decodeFloat32, encodeFloat32 } from './safetensors.ts';

const magic = '\x93NUMPY';
const descriptions = { F16: '<f2', F32: '<f4' } as const;

/** How the numbers are kept: halves, or 32-bit floats. */
export type NpyDtype = keyof typeof descriptions;

/** Numbers as the bytes of a .npy file. Halves are rounded to the nearest, ties to even. */
export function encodeNpy(data: Float32Array, shape: readonly number[], dtype: NpyDtype): Uint8Array {
  const tuple = `(${shape.join(', ')}${shape.length === 1 ? ',' : ''})`;
  const words = `{'descr': '${descriptions[dtype]}', 'fortran_order': False, 'shape': ${tuple}, }`;
  const start = magic.length + 4;
  const length = 64 * Math.ceil((start + words.length + 1) / 64) - start;
  const body = encodeFloat32('npy', data, dtype);
  const out = new Uint8Array(start + length + body.length);
  const text = `${magic}\x01\0${String.fromCharCode(length & 255, length >> 8)}${words.padEnd(length - 1)}\n`;
  for (let i = 0; i < text.length; i++) out[i] = text.charCodeAt(i);
  out.set(body, start + length);
  return out;
}

/**
 * The numbers of a .npy file of halves or 32-bit floats, as f32.
 * @throws Error that says what it is instead
 */
export function decodeNpy(bytes: Uint8Array, name: string): { shape: number[]; dtype: NpyDtype; data: Float32Array } {
  const text = (from: number, to: number) => String.fromCharCode(...bytes.subarray(from, to));
  if (text(0, 6) !== magic || bytes.length < 12) throw new Error(`${name}: not a .npy file`);
  const wide = bytes[6] > 1; // versions 2 and 3 have a u32
  const start = wide ? 12 : 10;
  const length = wide ? viewOf(bytes).getUint32(8, true) : viewOf(bytes).getUint16(8, true);
  const header = text(start, Math.min(bytes.length, start + length));
  const descr = /'descr':\s*'([^']*)'/.exec(header)?.[1];
  const dtype = (Object.keys(descriptions) as NpyDtype[]).find((key) => descriptions[key] === descr);
  const tuple = /'shape':\s*\(([\d,\s]*)\)/.exec(header)?.[1];
  if (!dtype || tuple === undefined || !/'fortran_order':\s*False/.test(header))
    throw new Error(`${name}: wants <f2 or <f4 in C order\n  header  ${header.trim().slice(0, 100)}`);
  const shape = tuple.split(',').flatMap((word) => (word.trim() ? [Number(word)] : []));
  const body = bytes.subarray(start + length);
  const wanted = shape.reduce((n, d) => n * d, dtype === 'F16' ? 2 : 4);
  if (body.length !== wanted)
    throw new Error(`${name}: has ${body.length} bytes of numbers, its shape wants ${wanted}`);
  return { shape, dtype, data: decodeFloat32(name, { dtype, shape }, body).data };
}
