/** All arrays one behind the other. */
export function concatenate(arrays: readonly Float32Array[]): Float32Array {
  const out = new Float32Array(arrays.reduce((sum, a) => sum + a.length, 0));
  let at = 0;
  for (const array of arrays) {
    out.set(array, at);
    at += array.length;
  }
  return out;
}

/** Item `index` … of an array of `count` items, or of one that stands for all: [count or 1, …] → [last − first, …] */
export function itemsOf(all: Float32Array, size: number, first: number, last: number): Float32Array {
  if (all.length > size) return all.subarray(first * size, last * size);
  return concatenate(Array.from({ length: last - first }, () => all));
}
