/**
 * Python's pickle, restricted: builds numbers, texts, lists, tuples, dicts and what a table of known names makes of them.
 * A name that is not in the table is refused when it is met; nothing of Python is ever run. Everything that is built takes
 * a byte of the file at least, so the file's size bounds memory and time.
 *
 * @see Lib/pickletools.py in CPython, which describes every opcode. https://github.com/python/cpython
 */
import { shown, viewOf } from './bytes.ts';

/** What a pickle can hold here: lists and tuples are arrays, dicts are Maps. */
export type Value =
  null | boolean | number | bigint | string | Uint8Array | Value[] | Map<Value, Value> | Set<Value> | Inert;

/** A Python object that stands for itself: it has a name and can be kept, no more. */
export class Inert {
  constructor(readonly name: string) {}
}

/** A known name that may be called. `spend` counts what a call builds against the size of the pickle. */
export class Callable extends Inert {
  constructor(
    name: string,
    readonly call: (args: Value[], spend: (items: number) => void) => Value,
  ) {
    super(name);
  }
}

export interface PickleWorld {
  /** What a name stands for; undefined refuses it. */
  find(name: string): Inert | undefined;
  /** What lies outside the pickle, such as a storage. */
  persistent(id: Value): Value;
}

export class PickleError extends Error {
  override name = 'PickleError';
}

/** The bytes end before the pickle does. */
export class PickleEnd extends PickleError {}

/** No pickle of weights is longer, nor has it more operations. */
export const maxPickle = 32 << 20;
const MAX_OPS = 2_000_000;

/**
 * The value of the pickle at `start`, and where it ends.
 * @throws PickleError for whatever is not plain data, saying what it is; PickleEnd when the bytes end first
 */
export function unpickle(bytes: Uint8Array, world: PickleWorld, start = 0): { value: Value; end: number } {
  const machine = new Machine(bytes, world, start);
  return { value: machine.run(), end: machine.at };
}

class Machine {
  at: number;
  #stack: Value[] = [];
  readonly #marks: number[] = [];
  readonly #memo = new Map<number, Value>();
  readonly #view: DataView;
  #budget: number;

  constructor(
    readonly bytes: Uint8Array,
    readonly world: PickleWorld,
    start: number,
  ) {
    this.at = start;
    this.#view = viewOf(bytes);
    this.#budget = bytes.length - start;
  }

  run(): Value {
    for (let ops = 0; ops < MAX_OPS; ops++) {
      const code = this.u8();
      if (code === 0x2e) return this.pop();
      const op = operations[code];
      if (!op) this.fail(`opcode 0x${code.toString(16)} is not one of plain data`);
      op(this);
    }
    this.fail(`more than ${MAX_OPS} operations`);
  }

  fail(message: string): never {
    throw new PickleError(`${message} (byte ${this.at} of the pickle)`);
  }

  take(length: number): Uint8Array {
    if (length < 0 || this.at + length > this.bytes.length) throw new PickleEnd('truncated: the pickle has no end');
    return this.bytes.subarray(this.at, (this.at += length));
  }

  skip(length: number): number {
    this.take(length);
    return this.at - length;
  }

  u8 = (): number => this.#view.getUint8(this.skip(1));
  u16 = (): number => this.#view.getUint16(this.skip(2), true);
  i32 = (): number => this.#view.getInt32(this.skip(4), true);
  u32 = (): number => this.#view.getUint32(this.skip(4), true);
  f64 = (): number => this.#view.getFloat64(this.skip(8), false);
  u64 = (): number => Number(this.#view.getBigUint64(this.skip(8), true)); // a length: what is not exact is too long anyway

  text = (length: number): string => new TextDecoder().decode(this.take(length));

  line(): string {
    const end = this.bytes.indexOf(10, this.at);
    if (end < 0) throw new PickleEnd('truncated: the pickle has no end');
    const text = this.text(end - this.at);
    this.at++;
    return text;
  }

  /** Latin-1 with \\u escapes, as protocol 0 writes texts. */
  rawUnicode(): string {
    const from = this.at;
    this.line();
    const letters = Array.from(this.bytes.subarray(from, this.at - 1), (byte) => String.fromCharCode(byte)).join('');
    return letters.replace(/\\u([0-9a-f]{4})/g, (_, hex: string) => String.fromCharCode(parseInt(hex, 16)));
  }

  /** Little-endian two's complement. */
  long(length: number): number | bigint {
    if (length > 256) this.fail(`a whole number of ${length} bytes`);
    const digits = this.take(length);
    let value = 0n;
    for (let i = length - 1; i >= 0; i--) value = (value << 8n) | BigInt(digits[i]);
    return narrow(BigInt.asIntN(8 * length, value));
  }

  /** A whole number in decimals, as protocol 0 has it. */
  decimal(text: string): Value {
    if (text === '00') return false;
    if (text === '01') return true;
    if (!/^-?\d{1,600}L?$/.test(text)) this.fail(`not a whole number: ${shown(text)}`);
    return narrow(BigInt(text.replace('L', '')));
  }

  push(value: Value): void {
    this.#stack.push(value);
  }

  pop(): Value {
    if (this.#stack.length <= (this.#marks.at(-1) ?? 0)) this.fail('takes a value where there is none');
    return this.#stack.pop()!;
  }

  top(): Value {
    const value = this.pop();
    this.push(value);
    return value;
  }

  mark(): void {
    this.#marks.push(this.#stack.length);
  }

  /** What was pushed since the last mark. */
  popMark(): Value[] {
    const from = this.#marks.pop();
    if (from === undefined) this.fail('no mark');
    return this.#stack.splice(from);
  }

  popCount(count: number): Value[] {
    return Array.from({ length: count }, () => this.pop()).reverse();
  }

  get(index: number): void {
    if (!this.#memo.has(index)) this.fail(`nothing is remembered as ${index}`);
    this.push(this.#memo.get(index)!);
  }

  put(index = this.#memo.size): void {
    this.#memo.set(index, this.top());
  }

  append(items: Value[]): void {
    const list = this.top();
    if (!Array.isArray(list)) this.fail('appends to what is no list');
    for (const item of items) list.push(item);
  }

  add(items: Value[]): void {
    const set = this.top();
    if (!(set instanceof Set)) this.fail('adds to what is no set');
    for (const item of items) set.add(item);
  }

  setItems(items: Value[]): void {
    const dict = this.top();
    if (!(dict instanceof Map)) this.fail('sets items of what is no dict');
    if (items.length % 2) this.fail('a key without a value');
    for (let i = 0; i < items.length; i += 2) dict.set(items[i], items[i + 1]);
  }

  dict(items: Value[]): void {
    this.push(new Map());
    this.setItems(items);
  }

  global(module: Value, name: Value): void {
    if (typeof module !== 'string' || typeof name !== 'string') this.fail('a name that is no text');
    const full = `${module}.${name}`;
    const found = this.world.find(full);
    if (!found) this.refuse(`its pickle asks for ${shown(full)}`);
    this.push(found);
  }

  call(callable: Value, args: Value): void {
    if (!Array.isArray(args)) this.fail('a call without a tuple of arguments');
    if (!(callable instanceof Callable)) {
      this.refuse(`its pickle calls ${callable instanceof Inert ? callable.name : 'what is no function'}`);
    }
    try {
      this.push(callable.call(args, (items) => this.#spend(items)));
    } catch (error) {
      if (error instanceof PickleError) throw error;
      this.fail(`${callable.name}: ${(error as Error).message}`);
    }
  }

  /** An object's attributes. Those of dicts (`_metadata` of a state dict) and of inert objects are of no use here. */
  build(): void {
    this.pop();
    const target = this.top();
    if (!(target instanceof Map || target instanceof Inert)) this.fail('gives attributes to what can have none');
  }

  persistent(): void {
    this.push(this.world.persistent(this.pop()));
  }

  refuse(what: string): never {
    throw new PickleError(
      `refused: ${what} (byte ${this.at} of the pickle)\n` +
        '  this reader builds tensors and plain containers only, and runs nothing\n' +
        '  if you trust the file, load it in Python and save its weights as safetensors',
    );
  }

  #spend(items: number): void {
    if ((this.#budget -= items) < 0) this.fail('builds more than the file holds');
  }
}

const narrow = (value: bigint): number | bigint =>
  BigInt(Number.MIN_SAFE_INTEGER) <= value && value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value;

/** Without its quotes; escapes stay as they are. */
const unquoted = (text: string): string => text.replace(/^(['"])(.*)\1$/s, '$2');

const code = (letter: string): number => letter.charCodeAt(0);

/** Opcode → what it does. Those that make objects of classes are absent or refuse. */
const operations: Record<number, (m: Machine) => void> = {
  [code('(')]: (m) => m.mark(),
  [code('0')]: (m) => void m.pop(),
  [code('1')]: (m) => void m.popMark(),
  [code('2')]: (m) => m.push(m.top()),
  [code('N')]: (m) => m.push(null),
  [0x88]: (m) => m.push(true),
  [0x89]: (m) => m.push(false),
  [code('I')]: (m) => m.push(m.decimal(m.line())),
  [code('L')]: (m) => m.push(m.decimal(m.line())),
  [code('J')]: (m) => m.push(m.i32()),
  [code('K')]: (m) => m.push(m.u8()),
  [code('M')]: (m) => m.push(m.u16()),
  [0x8a]: (m) => m.push(m.long(m.u8())),
  [0x8b]: (m) => m.push(m.long(m.i32())),
  [code('F')]: (m) => m.push(Number(m.line())),
  [code('G')]: (m) => m.push(m.f64()),
  [code('S')]: (m) => m.push(unquoted(m.line())),
  [code('T')]: (m) => m.push(m.text(m.i32())),
  [code('U')]: (m) => m.push(m.text(m.u8())),
  [code('V')]: (m) => m.push(m.rawUnicode()),
  [code('X')]: (m) => m.push(m.text(m.u32())),
  [0x8c]: (m) => m.push(m.text(m.u8())),
  [0x8d]: (m) => m.push(m.text(m.u64())),
  [code('B')]: (m) => m.push(m.take(m.u32())),
  [code('C')]: (m) => m.push(m.take(m.u8())),
  [0x8e]: (m) => m.push(m.take(m.u64())),
  [0x96]: (m) => m.push(m.take(m.u64())),
  [code(']')]: (m) => m.push([]),
  [code('l')]: (m) => m.push(m.popMark()),
  [code('a')]: (m) => m.append([m.pop()]),
  [code('e')]: (m) => m.append(m.popMark()),
  [code(')')]: (m) => m.push([]),
  [code('t')]: (m) => m.push(m.popMark()),
  [0x85]: (m) => m.push(m.popCount(1)),
  [0x86]: (m) => m.push(m.popCount(2)),
  [0x87]: (m) => m.push(m.popCount(3)),
  [code('}')]: (m) => m.push(new Map()),
  [code('d')]: (m) => m.dict(m.popMark()),
  [code('s')]: (m) => m.setItems(m.popCount(2)),
  [code('u')]: (m) => m.setItems(m.popMark()),
  [0x8f]: (m) => m.push(new Set()),
  [0x90]: (m) => m.add(m.popMark()),
  [0x91]: (m) => m.push(new Set(m.popMark())),
  [code('g')]: (m) => m.get(Number(m.line())),
  [code('h')]: (m) => m.get(m.u8()),
  [code('j')]: (m) => m.get(m.u32()),
  [code('p')]: (m) => m.put(Number(m.line())),
  [code('q')]: (m) => m.put(m.u8()),
  [code('r')]: (m) => m.put(m.u32()),
  [0x94]: (m) => m.put(),
  [code('c')]: (m) => m.global(m.line(), m.line()),
  [0x93]: (m) => m.global(...(m.popCount(2) as [Value, Value])),
  [code('R')]: (m) => m.call(...(m.popCount(2) as [Value, Value])),
  [code('b')]: (m) => m.build(),
  [code('Q')]: (m) => m.persistent(),
  [0x80]: (m) => {
    const protocol = m.u8();
    if (protocol > 5) m.fail(`protocol ${protocol} is newer than 5`);
  },
  [0x95]: (m) => void m.u64(), // a frame: a hint for readers that buffer
  [code('i')]: (m) => m.refuse(`its pickle makes an object of ${shown(`${m.line()}.${m.line()}`)}`),
  [code('o')]: (m) => m.refuse('its pickle makes an object of a class'),
  [0x81]: (m) => {
    const [cls] = m.popCount(2);
    m.refuse(`its pickle makes an object of ${cls instanceof Inert ? cls.name : 'what is no class'}`);
  },
};
