/** What a library must do to be measured beside the others. */
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Kind, Operand, WorkOf } from '../work.ts';

/** One op, ready to be called again and again with the same operands. */
export interface Call {
  /** Ask for it once, and drop the result. A promise is waited for before the next call. */
  run(): void | Promise<void>;
  /** The result of one call, channels last. For training: the losses of the first steps. */
  result(): Promise<ArrayLike<number>>;
  dispose(): void | Promise<void>;
}

export type Ops = { [K in Kind]?: (work: WorkOf<K>, operands: Operand[]) => Call | Promise<Call> };

/** One library on one back end. */
export interface Peer {
  version: string;
  ops: Ops;
  /** Everything asked for so far is done. */
  done(): Promise<unknown>;
}

/** Losses that are compared: those of steps 1 … STEPS. */
export const STEPS = 4;

interface Packages {
  load(name: string): Promise<any>;
  versionOf(name: string): string;
  folderOf(name: string): string;
}

/** Packages of this folder; bundles lie elsewhere, so it is asked for by its place in the checkout. */
export const { load, versionOf, folderOf }: Packages = await import(
  pathToFileURL(resolve('bench/peers/load.mjs')).href
);

/** Put WebGPU where browsers have it, for libraries that know only browsers. */
export async function pretendBrowser(): Promise<void> {
  const { create, globals } = await load('webgpu');
  Object.assign(globalThis, globals, { window: globalThis });
  const gpu = create(process.env.RECTIFLOW_ADAPTER ? [`adapter=${process.env.RECTIFLOW_ADAPTER}`] : []);
  const navigator = { gpu, userAgent: 'node', platform: process.platform, hardwareConcurrency: 2 };
  Object.defineProperty(globalThis, 'navigator', { value: navigator, configurable: true });
}

/** [B, H, W, C] → [B, C, H, W], or back with `from` and `to` exchanged: axis k of the result is axis `axes[k]`. */
export function permuted(
  data: ArrayLike<number>,
  shape: readonly number[],
  axes: readonly number[],
): Float32Array<ArrayBuffer> {
  const strides = shape.map((_, i) => shape.slice(i + 1).reduce((a, b) => a * b, 1));
  const out = new Float32Array(data.length);
  const sizes = axes.map((a) => shape[a]);
  const place = sizes.map(() => 0);
  for (let i = 0, at = 0; i < out.length; i++) {
    out[i] = data[at];
    for (let k = sizes.length - 1; k >= 0; k--) {
      at += strides[axes[k]];
      if (++place[k] < sizes[k]) break;
      at -= sizes[k] * strides[axes[k]];
      place[k] = 0;
    }
  }
  return out;
}

export const CHANNELS_FIRST = [0, 3, 1, 2];
export const CHANNELS_LAST = [0, 2, 3, 1];
