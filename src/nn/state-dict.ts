import { fits } from './layout.ts';
import type { Parameter } from './module.ts';
import { nearest } from './nearest.ts';

/** A checkpoint does not fit a model. */
export class StateDictError extends Error {
  override name = 'StateDictError';
  /** Keys of the model that the checkpoint lacks. */
  missing: readonly string[] = [];
  /** Keys of the checkpoint that the model does not have. */
  unexpected: readonly string[] = [];
}

/** Checkpoints also hold tables that follow from the configuration. */
const isBuffer = (key: string): boolean => key.endsWith('.position_ids');

/**
 * Which keys a checkpoint lacks, and which it has besides.
 * @throws StateDictError with all that differ, when shapes do, or (`strict`) keys
 */
export function compareKeys(
  model: string,
  parameters: ReadonlyMap<string, Parameter>,
  given: ReadonlyMap<string, { shape: readonly number[] }>,
  strict: boolean,
): { missing: string[]; unexpected: string[] } {
  const missing = [...parameters.keys()].filter((key) => !given.has(key));
  const unexpected = [...given.keys()].filter((key) => !parameters.has(key) && !isBuffer(key));
  const wrong: string[] = [];
  for (const [key, p] of parameters) {
    const shape = given.get(key)?.shape;
    if (shape && !fits(shape, p.shape, p.layout))
      wrong.push(`${key}  file [${shape.join(', ')}]  model [${p.checkpointShape.join(', ')}]`);
  }
  if (!wrong.length && (!strict || !(missing.length || unexpected.length))) return { missing, unexpected };
  const near = (key: string, has: string, known: string[]) => {
    const found = nearest(key, known);
    return found ? `${key}  (the ${has} has ${found})` : key;
  };
  const lines = [
    `${model}: these weights belong to another configuration`,
    ...list('missing', missing, (key) => near(key, 'file', unexpected)),
    ...list('unexpected', unexpected, (key) => near(key, 'model', missing)),
    ...list('wrong shape', wrong, (line) => line),
  ];
  throw Object.assign(new StateDictError(lines.join('\n')), { missing, unexpected });
}

function list(what: string, keys: string[], line: (key: string) => string): string[] {
  const shown = keys.slice(0, 12).map((key) => `  ${what}: ${line(key)}`);
  return keys.length > 12 ? [...shown, `  … and ${keys.length - 12} more ${what}`] : shown;
}
