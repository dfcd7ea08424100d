import { accumulate } from '../kernels/accumulate.ts';
import type { GpuArray, Op } from '../kernels/index.ts';
import type { Tensor } from './tensor.ts';

let recording = true;
let counter = 0;

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
  ) {
    for (const parent of parents) if (parent) parent.refs++;
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
export function noGrad<T>(fn: () => T): T {
  const before = recording;
  recording = false;
  try {
    return fn();
  } finally {
    recording = before;
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

/** Walk back from `root`; `deliver` gets the gradient of each leaf, added to what it had. */
export function runBackward(root: Node, seed: GpuArray, deliver: (leaf: Tensor, gradient: GpuArray) => void): void {
  const gradients = new Map<Node, GpuArray>([[root, seed]]);
  for (const node of reachable(root)) {
    const dy = gradients.get(node);
    if (!dy) continue;
    gradients.delete(node);
    if (node.leaf) {
      const before = node.leaf.grad;
      if (before) node.leaf.grad = undefined;
      deliver(node.leaf, before ? sum(before.array, dy) : dy);
      continue;
    }
    if (node.spent)
      throw new Error(
        `${node.op!.name}: backward was already run through here\n  run the forward pass again before a second backward()`,
      );
    const needs = node.parents.map((parent) => parent !== undefined);
    const results = node.op!.backward!(dy.gpu, dy, node.saved as readonly GpuArray[], node.attrs, needs);
    node.parents.forEach((parent, i) => {
      const gradient = results[i];
      if (!gradient) return;
      if (!parent) return gradient.dispose();
      const before = gradients.get(parent);
      gradients.set(parent, before ? sum(before, gradient) : gradient);
    });
    dy.dispose();
    node.release();
    node.spent = true;
  }
}

/** Consumes both. In place where nobody else holds the memory. */
function sum(a: GpuArray, b: GpuArray): GpuArray {
  if (a.storage.refs > 1) [a, b] = [b, a];
  if (a.storage.refs > 1) {
    const copy = a.gpu.empty(a.shape);
    a.gpu.copy(a, copy);
    a.dispose();
    a = copy;
  }
  accumulate(a, b);
  b.dispose();
  return a;
}

/** Every node that `root` depends on, latest first: an order in which each comes after all that used it. */
function reachable(root: Node): Node[] {
  const seen = new Set([root]);
  for (const node of seen) for (const parent of node.parents) if (parent) seen.add(parent);
  return [...seen].sort((a, b) => b.order - a.order);
}
