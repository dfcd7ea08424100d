import { Tensor } from '../tensor/index.ts';
import type { Module } from './module.ts';

/**
 * See what every module inside `model` makes while `run` runs: `seen` gets its key and its output.
 * For finding the first block that is wrong, and for feature distances.
 */
export function observe<T>(model: Module, seen: (key: string, output: Tensor) => void, run: () => T): T {
  const watched: Module[] = [];
  for (const [key, module] of model.namedModules()) {
    for (const name of ['forward', 'forwardImage'] as const) {
      const original = (module as any)[name];
      if (!original) continue;
      (module as any)[name] = (...args: unknown[]) => {
        const output = original.apply(module, args);
        if (output instanceof Tensor) seen(key, output);
        return output;
      };
      watched.push(module);
    }
  }
  try {
    return run();
  } finally {
    for (const module of watched) {
      delete (module as any).forward;
      delete (module as any).forwardImage;
    }
  }
}
