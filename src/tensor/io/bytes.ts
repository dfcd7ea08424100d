/** Bytes that are read by ranges: a file on disk, or one in memory. */
export interface Bytes {
  /** For errors: the path. */
  readonly name: string;
  readonly size: number;
  /** `length` bytes from `begin`, in a buffer of their own. @throws when they end before */
  read(begin: number, length: number): Promise<Uint8Array<ArrayBuffer>>;
  close(): Promise<void>;
}

/** A file in memory. */
export function memoryBytes(data: Uint8Array, name = 'memory'): Bytes {
  return {
    name,
    size: data.length,
    async read(begin, length) {
      if (begin + length > data.length) throw new Error(`${name}: ended at byte ${data.length} while being read`);
      return data.slice(begin, begin + length);
    },
    async close() {},
  };
}

/** A DataView over the same bytes. */
export const viewOf = ({ buffer, byteOffset, byteLength }: Uint8Array): DataView =>
  new DataView(buffer, byteOffset, byteLength);

/** A name out of a file as an error shows it: short, on one line. */
export function shown(name: string): string {
  const line = name.replace(/[\0-\x1f\x7f]/g, '·');
  return line.length > 100 ? `${line.slice(0, 100)}…` : line;
}
