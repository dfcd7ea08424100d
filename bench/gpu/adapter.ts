/** What the adapter says of itself, and what of that we use. */
import { currentGpu } from '../../src/tensor/index.ts';

/** Facts of an adapter. */
export interface AdapterFacts {
  info: Record<string, unknown>;
  features: string[];
  limits: Record<string, number>;
  capabilities: Record<string, unknown>;
  toggles: readonly string[];
}

/** Of the adapter in use. */
export function aboutAdapter(): AdapterFacts {
  const { adapter, capabilities, toggles } = currentGpu();
  const plain = (thing: object) => {
    const names = Object.keys(Object.getOwnPropertyDescriptors(Object.getPrototypeOf(thing) as object));
    return Object.fromEntries(
      names.flatMap((name) => {
        const value = (thing as Record<string, unknown>)[name];
        return typeof value === 'function' ? [] : [[name, value]];
      }),
    );
  };
  return {
    info: plain(adapter.info),
    features: [...adapter.features].sort(),
    limits: plain(adapter.limits) as Record<string, number>,
    capabilities: { ...capabilities },
    toggles,
  };
}
