/**
 * Writes ONNX models: the few messages of onnx.proto3 that one op needs, in protocol buffers' wire format.
 * @see https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3
 */
import type { Operand } from '../work.ts';

export interface Graph {
  inputs: Record<string, number[]>;
  outputs: Record<string, number[]>;
  /** Constants, as a trained model has its weights. */
  weights?: Record<string, Operand | { shape: number[]; data: BigInt64Array<ArrayBuffer> }>;
  nodes: Node[];
}

export interface Node {
  op: string;
  inputs: string[];
  output: string;
  attributes?: Record<string, number | number[]>;
  /** 'com.microsoft' for ONNX Runtime's own ops. */
  domain?: string;
}

const IR_VERSION = 8;
const OPSET = 17;
const [FLOAT, INT64] = [1, 7];

export function model({ inputs, outputs, weights = {}, nodes }: Graph): Uint8Array<ArrayBuffer> {
  const graph = message(
    ...nodes.map((node) => field(1, nodeOf(node))),
    field(2, text('work')),
    ...Object.entries(weights).map(([name, { shape, data }]) => {
      const type = data instanceof BigInt64Array ? INT64 : FLOAT;
      const raw = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
      return field(5, message(...shape.map((d) => field(1, d)), field(2, type), field(8, text(name)), field(9, raw)));
    }),
    ...Object.entries(inputs).map(([name, shape]) => field(11, valueOf(name, shape))),
    ...Object.entries(outputs).map(([name, shape]) => field(12, valueOf(name, shape))),
  );
  const opset = (domain: string, version: number) => field(8, message(field(1, text(domain)), field(2, version)));
  return message(field(1, IR_VERSION), opset('', OPSET), opset('com.microsoft', 1), field(7, graph));
}

function nodeOf({ op, inputs, output, attributes = {}, domain = '' }: Node): Uint8Array<ArrayBuffer> {
  return message(
    ...inputs.map((name) => field(1, text(name))),
    field(2, text(output)),
    field(4, text(op)),
    ...Object.entries(attributes).map(([name, value]) => field(5, attributeOf(name, value))),
    field(7, text(domain)),
  );
}

/** Whole numbers become INT (2) or INTS (7), others FLOAT (1). */
function attributeOf(name: string, value: number | number[]): Uint8Array<ArrayBuffer> {
  if (Array.isArray(value)) return message(field(1, text(name)), ...value.map((v) => field(8, v)), field(20, 7));
  if (Number.isInteger(value)) return message(field(1, text(name)), field(3, value), field(20, 2));
  const bytes = new Uint8Array(Float32Array.of(value).buffer);
  return message(field(1, text(name)), Uint8Array.of((2 << 3) | 5, ...bytes), field(20, 1));
}

function valueOf(name: string, shape: number[]): Uint8Array<ArrayBuffer> {
  const dimensions = shape.map((d) => field(1, message(field(1, d))));
  const tensor = message(field(1, FLOAT), field(2, message(...dimensions)));
  return message(field(1, text(name)), field(2, message(field(1, tensor))));
}

/** One field: a number as varint (wire type 0), bytes with their length (wire type 2). */
function field(number: number, value: number | Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  if (typeof value !== 'number') return message(varint((number << 3) | 2), varint(value.length), value);
  return message(varint(number << 3), varint(value));
}

/** Negative numbers take ten bytes, as 64-bit two's complement. */
function varint(value: number): Uint8Array<ArrayBuffer> {
  const bytes: number[] = [];
  let rest = BigInt.asUintN(64, BigInt(value));
  for (; rest > 127n; rest >>= 7n) bytes.push(Number(rest & 127n) | 128);
  return Uint8Array.of(...bytes, Number(rest));
}

const text = (value: string): Uint8Array<ArrayBuffer> => Uint8Array.from(new TextEncoder().encode(value));

function message(...parts: Uint8Array<ArrayBuffer>[]): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(parts.reduce((n, part) => n + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}
