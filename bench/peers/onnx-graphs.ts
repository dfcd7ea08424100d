/** The ONNX graph of each op, as PyTorch exports it: channels first, weights as constants. */
import type { Operand, Work } from '../work.ts';
import type { Graph, Node } from './onnx.ts';
import { CHANNELS_FIRST, CHANNELS_LAST, permuted } from './peer.ts';

export interface OnnxWork extends Graph {
  feeds: Record<string, Operand>;
  /** Axes of the result in the order that ours has. */
  back?: number[];
}

/**
 * `fused` allows ONNX Runtime's own attention op: the fastest on its CPU providers, but its WebGPU kernel gives
 * wrong numbers on lavapipe (1.30.0), so that provider gets two products and a softmax.
 */
export function graphOf(work: Work, operands: Operand[], fused: boolean): OnnxWork {
  const [x, w, b] = operands;
  if (work.kind === 'matmul') {
    return of({ x, w }, {}, [work.M, work.N], [node('MatMul', ['x', 'w'], 'y')]);
  }
  if (work.kind === 'conv') {
    const attributes = { kernel_shape: [3, 3], pads: [1, 1, 1, 1] };
    const { B, H, W, O } = work;
    const nodes = [node('Conv', ['x', 'w', 'b'], 'y', attributes)];
    return { ...of({ x: first(x) }, { w: first(w), b }, [B, O, H, W], nodes), back: CHANNELS_LAST };
  }
  if (work.kind === 'attention' && fused) {
    const attention = node('MultiHeadAttention', ['q', 'k', 'v'], 'y', { num_heads: work.heads });
    return of({ q: x, k: w, v: b }, {}, x.shape, [{ ...attention, domain: 'com.microsoft' }]);
  }
  if (work.kind === 'attention') {
    const { B, heads, Tq, D } = work;
    const split = ({ shape: [, T], data }: Operand, axes: number[]): Operand => ({
      shape: axes.map((axis) => [B, T, heads, D][axis]),
      data: permuted(data, [B, T, heads, D], axes),
    });
    const feeds = { q: split(x, [0, 2, 1, 3]), k: split(w, [0, 2, 3, 1]), v: split(b, [0, 2, 1, 3]) };
    const scale = { shape: [1], data: Float32Array.of(1 / Math.sqrt(D)) };
    const nodes = [
      node('MatMul', ['q', 'k'], 'scores'),
      node('Mul', ['scores', 'scale'], 'scaled'),
      node('Softmax', ['scaled'], 'weights', { axis: -1 }),
      node('MatMul', ['weights', 'v'], 'y'),
    ];
    return { ...of(feeds, { scale }, [B, heads, Tq, D], nodes), back: [0, 2, 1, 3] };
  }
  if (work.kind === 'groupNormSilu') {
    const { B, H, W, C, groups } = work;
    const flat = { shape: [3], data: BigInt64Array.of(0n, BigInt(groups), -1n) };
    const full = { shape: [4], data: BigInt64Array.of(BigInt(B), BigInt(C), BigInt(H), BigInt(W)) };
    const one = { shape: [groups], data: new Float32Array(groups).fill(1) };
    const zero = { shape: [groups], data: new Float32Array(groups) };
    const perChannel = ({ data }: Operand) => ({ shape: [C, 1, 1], data });
    const nodes = [
      node('Reshape', ['x', 'flat'], 'parts'),
      node('InstanceNormalization', ['parts', 'one', 'zero'], 'normal', { epsilon: 1e-5 }),
      node('Reshape', ['normal', 'full'], 'whole'),
      node('Mul', ['whole', 'w'], 'scaled'),
      node('Add', ['scaled', 'b'], 'h'),
      node('Sigmoid', ['h'], 'gate'),
      node('Mul', ['h', 'gate'], 'y'),
    ];
    const weights = { flat, full, one, zero, w: perChannel(w), b: perChannel(b) };
    return { ...of({ x: first(x) }, weights, [B, C, H, W], nodes), back: CHANNELS_LAST };
  }
  if (work.kind === 'layerNorm') {
    return of({ x }, { w, b }, x.shape, [
      node('LayerNormalization', ['x', 'w', 'b'], 'y', { axis: -1, epsilon: 1e-5 }),
    ]);
  }
  if (work.kind === 'softmax') return of({ x }, {}, x.shape, [node('Softmax', ['x'], 'y', { axis: -1 })]);
  if (work.kind === 'add') return of({ x, w }, {}, x.shape, [node('Add', ['x', 'w'], 'y')]);
  throw new Error('runs networks, does not train them');
}

const node = (op: string, inputs: string[], output: string, attributes?: Node['attributes']): Node => ({
  op,
  inputs,
  output,
  attributes,
});

function of(feeds: Record<string, Operand>, weights: Graph['weights'], shape: number[], nodes: Node[]): OnnxWork {
  const inputs = Object.fromEntries(Object.entries(feeds).map(([name, { shape }]) => [name, shape]));
  return { feeds, inputs, outputs: { y: shape }, weights, nodes };
}

const first = ({ shape, data }: Operand): Operand => ({
  shape: CHANNELS_FIRST.map((axis) => shape[axis]),
  data: permuted(data, shape, CHANNELS_FIRST),
});
