/** The interface between the groups of golden cases and the command that runs them. */
import type { Gpu } from '../../kernels/index.ts';
import { currentGpu, init } from '../../tensor/index.ts';
import type { HostTensor } from '../../tensor/io/safetensors.ts';
import { readTensors } from '../../tensor/io/files-node.ts';
import type { Check } from './compare.ts';
import type { Golden, GoldenCase } from './golden.ts';

export type { Check } from './compare.ts';
export type { GoldenCase } from './golden.ts';

/** Runs one case of a group and says what came out and what should have. Throw `Skip` when the case cannot run here. */
export type Runner = (c: GoldenCase, context: Context) => Promise<Check[]>;

/** This case cannot run, and why: shown in the summary, counted apart from failures. */
export class Skip extends Error {
  override name = 'Skip';
}

/** What runners share. */
export class Context {
  /** `dtype`: what whole networks of full size compute in. */
  constructor(
    readonly golden: Golden,
    readonly dtype: 'f32' | 'f16' = 'f32',
  ) {}

  /** The tensors in the file of a case, in PyTorch's layout. */
  tensors(c: GoldenCase): Promise<Record<string, HostTensor>> {
    return this.golden.tensors(c);
  }

  /** Tensors of another file in the folder; `path` is relative to it. */
  async file(path: string): Promise<Record<string, HostTensor>> {
    return (await readTensors(this.golden.path(path))).tensors;
  }

  /** A JSON file in the folder, e.g. a case's `json`. */
  json(path: string): Promise<any> {
    return this.golden.json(path);
  }

  path(relative: string): string {
    return this.golden.path(relative);
  }

  /** The device, opened by the first case that needs one. */
  async gpu(): Promise<Gpu> {
    this.opening ??= init();
    await this.opening;
    return currentGpu();
  }

  /** Was a device needed so far? */
  get device(): Promise<Gpu> | undefined {
    return this.opening;
  }

  private opening: Promise<Gpu> | undefined;
}

/** The tolerance of a case on GPUs (f32), of one of its parts (`out`, `grad`) if it has parts. */
export function tolerance(c: GoldenCase, part?: string): number {
  const tol = (part && c.tol?.[part]) || c.tol;
  const limit = tol?.rel_max_gpu_f32 ?? tol?.rel_max_cpu_f32 ?? tol?.rel;
  if (typeof limit !== 'number') throw new Error(`${c.id} states no tolerance${part ? ` for ${part}` : ''}`);
  return limit;
}
