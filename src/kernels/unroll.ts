const unrolled = new Map<string, Map<string, string>>();

/** `unroll`, remembered: the same text for the same kernel and bounds. */
export function unrolledOnce(code: string, bounds: Readonly<Record<string, number>>): string {
  let variants = unrolled.get(code);
  if (!variants) unrolled.set(code, (variants = new Map()));
  const key = Object.values(bounds).join();
  let text = variants.get(key);
  if (!text) variants.set(key, (text = unroll(code, bounds)));
  return text;
}

/**
 * Write out the loops `for (var i = 0u; i < NAME; i++) { … }` whose bound is a given constant.
 *
 * Register tiles are arrays indexed by such loops. lavapipe and GPU drivers unroll them by themselves; SwiftShader does not,
 * and an array that is indexed by a variable lives in its memory: 20 times slower.
 */
export function unroll(code: string, bounds: Readonly<Record<string, number>>): string {
  const loop = /for \(var (\w+) = 0u; \1 < (\w+); \1\+\+\) \{/g;
  let out = '';
  let done = 0;
  for (let m = loop.exec(code); m; m = loop.exec(code)) {
    const times = bounds[m[2]];
    if (times === undefined) continue;
    const end = closing(code, loop.lastIndex);
    const body = unroll(code.slice(loop.lastIndex, end), bounds);
    const name = new RegExp(`\\b${m[1]}\\b`, 'g');
    out += code.slice(done, m.index);
    for (let i = 0; i < times; i++) out += `{${body.replace(name, `${i}u`)}}\n`;
    loop.lastIndex = done = end + 1;
  }
  return out + code.slice(done);
}

/** @returns where the block that is open at `at` closes */
function closing(code: string, at: number): number {
  for (let depth = 1; at < code.length; at++) {
    if (code[at] === '{') depth++;
    if (code[at] === '}' && --depth === 0) return at;
  }
  throw new Error('unbalanced braces in a kernel');
}
