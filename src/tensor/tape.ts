import { accumulate } from '../kernels/accumulate.ts';
import type { GpuArray, Op } from '../kernels/index.ts';
import type { Tensor } from './tensor.ts';

let recording = true;
/** Inside the first pass of a checkpoint: the nodes that its graph would have begun at. */
let noted: Set<Node> | undefined;
let counter = 0;

/** A part of a forward pass that kept its inputs only. */
export interface Segment {
  /** Compute it again from those inputs, which it frees, remembering all; one held node for each output. */
  again(inputs: readonly GpuArray[]): (Node | undefined)[];
  /** One for each output. */
  nodes: Node[];
}

/** One step of a forward pass, or a leaf. Holds what backward needs until backward has used it or nobody can ask any more. */
export class Node {
  readonly order = counter++;
  /** Its output tensor, and every node that was computed from it. */
  refs = 1;
  spent = false;

  constructor(
    readonly op: Op | undefined,
    readonly attrs: object,
    readonly parents: readonly (Node | undefined)[],
    public saved: readonly (GpuArray | undefined)[],
    readonly leaf?: Tensor,
    readonly segment?: Segment,
  ) {
    for (const parent of parents) parent?.ref();
  }

  ref(): this {
    this.refs++;
    return this;
  }

  unref(): void {
    if (--this.refs > 0) return;
    this.release();
    for (const parent of this.parents) parent?.unref();
  }

  release(): void {
    for (const array of this.saved) array?.dispose();
    this.saved = [];
  }
}

/** Compute without remembering: sampling, evaluation, optimiser steps. */
export const noGrad = <T>(fn: () => T): T => remembering(false, undefined, fn);

/** Compute and remember, also inside noGrad. */
export const withGrad = <T>(fn: () => T): T => remembering(true, undefined, fn);

/** Compute without remembering; also returns the nodes of what `fn` used. */
export function noting<T>(fn: () => T): [result: T, used: Node[]] {
  const nodes = new Set<Node>();
  return [remembering(false, nodes, fn), [...nodes]];
}

export const isRecording = (): boolean => recording;

function remembering<T>(on: boolean, nodes: Set<Node> | undefined, fn: () => T): T {
  const before = [recording, noted] as const;
  [recording, noted] = [on, nodes];
  try {
    return fn();
  } finally {
    [recording, noted] = before;
  }
}

export const leafOf = (tensor: Tensor): Node => new Node(undefined, {}, [], [], tensor);

/** @returns the node of `output`, or undefined when no input asks for a gradient; then what was saved is freed */
export function record(
  op: Op,
  attrs: object,
  inputs: readonly (Tensor | undefined)[],
  output: GpuArray,
  saved: readonly (GpuArray | undefined)[],
): Node | undefined {
  const borrowed = new Set<GpuArray | undefined>([output, ...inputs.map((t) => t?.array)]);
  if (noted && op.backward) for (const t of inputs) if (t?.node) noted.add(t.node);
  if (!recording || !op.backward || !inputs.some((t) => t?.node)) {
    for (const array of new Set(saved)) if (!borrowed.has(array)) array?.dispose();
    return undefined;
  }
  const kept = saved.map((array) => (borrowed.has(array) ? array?.view() : array));
  return new Node(
    op,
    attrs,
    inputs.map((t) => t?.node),
    kept,
  );
}

type Deliver = (leaf: Tensor, gradient: GpuArray) => void;

/** Walk back from `root`; `deliver` gets the gradient of each leaf, added to what it had. */
export function runBackward(root: Node, seed: GpuArray, deliver: Deliver): void {
  walk(reachable([root]), new Map([[root, seed]]), deliver);
}

function walk(nodes: readonly Node[], gradients: Map<Node, GpuArray>, deliver: Deliver): void {
  for (const node of nodes) {
    const dy = gradients.get(node);
    if (!dy) continue;
    if (node.spent) {
      const op = node.op?.name ?? 'checkpoint';
      throw new Error(
        `${op}: backward was already run through here\n  run the forward pass again before a second backward()`,
      );
    }
    if (node.segment) {
      walkAgain(node.segment, node.saved as readonly GpuArray[], gradients, deliver);
      continue;
    }
    gradients.delete(node);
    if (node.leaf) {
      const before = node.leaf.grad;
      if (before) node.leaf.grad = undefined;
      deliver(node.leaf, before ? sum(before.array, dy) : dy);
      continue;
    }
    const needs = node.parents.map((parent) => parent !== undefined);
    const results = dy.gpu.named(`${node.op!.name} backward`, () =>
      node.op!.backward!(dy.gpu, dy, node.saved as readonly GpuArray[], node.attrs, needs),
    );
    node.parents.forEach((parent, i) => {
      const gradient = results[i];
      if (!gradient) return;
      if (parent) add(gradients, parent, gradient);
      else gradient.dispose();
    });
    dy.dispose();
    node.release();
    node.spent = true;
  }
}

/**
 * Make a segment again and walk back through it. Its outputs come together: all that used any of them came before. Its
 * new nodes lead to the very nodes that the segment began at, so gradients add up in the order of a plain pass.
 */
function walkAgain(
  { again, nodes }: Segment,
  inputs: readonly GpuArray[],
  gradients: Map<Node, GpuArray>,
  deliver: Deliver,
) {
  const first = counter;
  const roots = again(inputs);
  nodes.forEach((node, i) => {
    const dy = gradients.get(node);
    gradients.delete(node);
    node.release();
    node.spent = true;
    const root = roots[i];
    if (dy && root) add(gradients, root, dy);
    else dy?.dispose();
  });
  const held = roots.filter((root) => root !== undefined);
  walk(
    reachable(held).filter((node) => node.order >= first),
    gradients,
    deliver,
  );
  for (const root of held) root.unref();
}

function add(gradients: Map<Node, GpuArray>, node: Node, gradient: GpuArray): void {
  const before = gradients.get(node);
  gradients.set(node, before ? sum(before, gradient) : gradient);
}

/** Consumes both. In place where nobody else holds the memory. */
function sum(a: GpuArray, b: GpuArray): GpuArray {
  if (a.shared) [a, b] = [b, a];
  if (a.shared) {
    const copy = a.gpu.empty(a.shape, a.dtype);
    a.gpu.copy(a, copy);
    a.dispose();
    a = copy;
  }
  accumulate(a, b);
  b.dispose();
  return a;
}

/** Every node that `roots` depend on, latest first: an order in which each comes after all that used it. */
function reachable(roots: readonly Node[]): Node[] {
  const seen = new Set(roots);
  for (const node of seen) for (const parent of node.parents) if (parent) seen.add(parent);
  return [...seen].sort((a, b) => b.order - a.order);
}
