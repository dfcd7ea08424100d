import { freemem } from 'node:os';
import type { Gpu } from '../kernels/index.ts';

/**
 * Bytes that arrays may take: what the machine has free, for a software adapter. WebGPU tells nothing of the memory of a GPU.
 */
export function availableMemory(gpu: Gpu): number | undefined {
  if (gpu.capabilities.family !== 'cpu') return undefined;
  // Newer Nodes know what a container may take.
  return (process as { availableMemory?: () => number }).availableMemory?.() ?? freemem();
}
