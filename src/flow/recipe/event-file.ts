/**
 * TensorBoard's event files: TFRecord framing around protobuf `Event`s.
 *
 *     record = uint64 length | masked crc32c of it | bytes | masked crc32c of them      little-endian
 *     masked = rotate(crc, 15 to the right) + 0xa282ead8
 *
 * @see https://github.com/tensorflow/tensorboard/blob/master/tensorboard/compat/proto/event.proto and summary.proto
 */
import { appendFileSync } from 'node:fs';
import { mkdir, readdir, readFile, rm, truncate } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { cannotWrite } from './checkpoints.ts';

const PREFIX = 'events.out.tfevents.';
/** Numbers of fields and values in the .proto files. */
const DT_STRING = 7;
const DATA_CLASS_TENSOR = 2;

/** One file of events, to which every call appends at once. */
export class EventFile {
  private constructor(
    readonly path: string,
    /** Nothing of an earlier session is left in the folder. */
    readonly isFirst: boolean,
  ) {}

  /** A new file beside those that are there; what those hold of steps after `upTo` is cut off, so that no step is there twice. */
  static async open(folder: string, upTo: number): Promise<EventFile> {
    try {
      await mkdir(folder, { recursive: true });
      const before = (await readdir(folder)).filter((name) => name.startsWith(PREFIX));
      for (const name of before) await cutEvents(join(folder, name), upTo);
      const count = (await readdir(folder)).filter((name) => name.startsWith(PREFIX)).length;
      const name = `${PREFIX}${Math.floor(Date.now() / 1000)}.${hostname()}.${process.pid}.${before.length}`;
      const file = new EventFile(join(folder, name), count === 0);
      file.#append(utf8(3, 'brain.Event:2'));
      return file;
    } catch (error) {
      throw cannotWrite(error, folder);
    }
  }

  scalars(step: number, values: Record<string, number>): void {
    this.#summary(
      step,
      Object.entries(values).map(([tag, value]) => [utf8(1, tag), float32(2, value)]),
    );
  }

  /** A PNG file as it is. */
  image(step: number, tag: string, png: Buffer): void {
    const [width, height] = [png.readUInt32BE(16), png.readUInt32BE(20)]; // of the IHDR chunk
    const image = [varint(1, height), varint(2, width), varint(3, 3), bytes(4, png)];
    this.#summary(step, [[utf8(1, tag), message(4, ...image)]]);
  }

  /** Markdown. */
  text(step: number, tag: string, words: string): void {
    const tensor = [varint(1, DT_STRING), message(2, message(2, varint(1, 1))), utf8(8, words)];
    const metadata = [message(1, utf8(1, 'text')), varint(4, DATA_CLASS_TENSOR)];
    this.#summary(step, [[utf8(1, tag), message(8, ...tensor), message(9, ...metadata)]]);
  }

  #summary(step: number, values: Buffer[][]): void {
    this.#append(varint(2, step), message(5, ...values.map((value) => message(1, ...value))));
  }

  #append(...fields: Buffer[]): void {
    try {
      appendFileSync(this.path, record(Buffer.concat([float64(1, Date.now() / 1000), ...fields])));
    } catch (error) {
      throw cannotWrite(error, this.path);
    }
  }
}

/** Cut a file of events in front of the first that is later than `upTo`, or torn; one without steps is removed. */
async function cutEvents(path: string, upTo: number): Promise<void> {
  const file = await readFile(path);
  let end = 0;
  let events = 0;
  while (end + 12 <= file.length) {
    const length = Number(file.readBigUInt64LE(end));
    const next = end + 16 + length;
    if (next > file.length || stepOf(file.subarray(end + 12, end + 12 + length)) > upTo) break;
    end = next;
    events++;
  }
  if (events < 2)
    await rm(path); // the first has no step, only the format's version
  else if (end < file.length) await truncate(path, end);
}

/** Field 2 of an event; it lies behind the time, field 1. */
function stepOf(event: Buffer): number {
  if (event[9] !== 0x10) return 0;
  let step = 0;
  for (let i = 10, scale = 1; ; i++, scale *= 128) {
    step += (event[i] & 127) * scale;
    if (!(event[i] & 128)) return step;
  }
}

function record(data: Buffer): Buffer {
  const out = Buffer.alloc(data.length + 16);
  out.writeBigUInt64LE(BigInt(data.length), 0);
  out.writeUInt32LE(maskedCrc(out.subarray(0, 8)), 8);
  data.copy(out, 12);
  out.writeUInt32LE(maskedCrc(data), data.length + 12);
  return out;
}

function maskedCrc(data: Uint8Array): number {
  const crc = crc32c(data);
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}

/** Castagnoli's polynomial, 0x1edc6f41, with its bits in reverse. */
const table = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0x82f63b78 ^ (n >>> 1) : n >>> 1;
  return n;
});

/** @see RFC 3720, appendix B.4 */
export function crc32c(data: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of data) crc = table[(crc ^ byte) & 0xff] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

// Fields of a protobuf message: a key (number · 8 + wire type), then the value.

function varint(field: number, value: number): Buffer {
  return Buffer.from([...digits(field << 3), ...digits(value)]);
}

/** Seven bits to a byte, the lowest first. */
function digits(value: number): number[] {
  const out: number[] = [];
  for (; value >= 128; value = Math.floor(value / 128)) out.push((value % 128) | 128);
  return [...out, value];
}

function float64(field: number, value: number): Buffer {
  const out = Buffer.alloc(9);
  out[0] = (field << 3) | 1;
  out.writeDoubleLE(value, 1);
  return out;
}

function float32(field: number, value: number): Buffer {
  const out = Buffer.alloc(5);
  out[0] = (field << 3) | 5;
  out.writeFloatLE(value, 1);
  return out;
}

function bytes(field: number, value: Buffer): Buffer {
  return Buffer.concat([Buffer.from([...digits((field << 3) | 2), ...digits(value.length)]), value]);
}

const utf8 = (field: number, words: string): Buffer => bytes(field, Buffer.from(words, 'utf8'));
const message = (field: number, ...fields: Buffer[]): Buffer => bytes(field, Buffer.concat(fields));
