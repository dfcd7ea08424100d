import type { Tensor } from './tensor.ts';

const scopes: Set<Tensor>[] = [];

export function adopt(tensor: Tensor): void {
  scopes.at(-1)?.add(tensor);
}

/** Let a tensor outlive the scope it was made in; somebody else frees it. */
export function disown(tensor: Tensor): void {
  for (let i = scopes.length - 1; i >= 0; i--) if (scopes[i].delete(tensor)) return;
}

/** Let a tensor outlive the scope it was made in. Whoever keeps it disposes it. */
export function keep<T extends Tensor>(tensor: T): T {
  disown(tensor);
  return tensor;
}

/**
 * Free every tensor made inside `fn`, except those in what it returns (tensors in arrays, maps and plain objects count).
 * With an async `fn` the scope lasts until its promise settles; run one such at a time.
 */
export function scope<T>(fn: () => T): T {
  const made = new Set<Tensor>();
  scopes.push(made);
  const close = (result?: unknown) => {
    scopes.splice(scopes.lastIndexOf(made), 1);
    const kept = new Set<unknown>();
    collect(result, made, kept);
    for (const tensor of [...made]) {
      if (kept.has(tensor)) adopt(tensor);
      else tensor.dispose();
    }
  };
  let result: T;
  try {
    result = fn();
  } catch (error) {
    close();
    throw error;
  }
  if (result instanceof Promise) {
    return result.then(
      (value) => (close(value), value),
      (error) => {
        close();
        throw error;
      },
    ) as T;
  }
  close(result);
  return result;
}

/** Tensors reachable through arrays, maps, sets and plain objects. */
function collect(value: unknown, made: Set<Tensor>, kept: Set<unknown>): void {
  if (typeof value !== 'object' || value === null || kept.has(value)) return;
  kept.add(value);
  const plain = Object.getPrototypeOf(value) === Object.prototype;
  const children =
    Array.isArray(value) || value instanceof Map || value instanceof Set
      ? value.values()
      : plain
        ? Object.values(value)
        : [];
  for (const child of children) collect(child, made, kept);
}
