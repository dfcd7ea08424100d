/** Where ticks go and what they say. */
export interface Tick {
  value: number;
  label: string;
}

/** Multiples of 1, 2 or 5 times a power of ten that lie in [low, high], about `wanted` of them. */
export function linearTicks(low: number, high: number, wanted: number): Tick[] {
  const rough = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((m) => m * power >= rough * 0.99) ?? 10);
  const first = Math.ceil(low / step - 1e-9),
    last = Math.floor(high / step + 1e-9);
  const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  return Array.from({ length: last - first + 1 }, (_, i) => {
    const value = (first + i) * step;
    return { value, label: tickLabel(value, decimals) };
  });
}

/** Powers of ten in [low, high]; where they are few, 2 and 5 times them too, and where they are none, plain ticks. */
export function logTicks(low: number, high: number, wanted: number): Tick[] {
  const decades = Math.log10(high / low);
  if (decades < 0.7) return linearTicks(low, high, wanted);
  const factors = decades < 2.5 ? [1, 2, 5] : [1];
  const every = Math.ceil(decades / (1.5 * wanted));
  const ticks: Tick[] = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++) {
    if (e % every !== 0) continue;
    for (const factor of factors) {
      const value = Number(`${factor}e${e}`);
      if (value >= low * 0.999 && value <= high * 1.001)
        ticks.push({ value, label: tickLabel(value, Math.max(0, -e)) });
    }
  }
  return ticks;
}

function tickLabel(value: number, decimals: number): string {
  const size = Math.abs(value);
  if (size >= 1e6) return `${+(value / 1e6).toPrecision(4)}M`;
  if (size >= 1e4) return `${+(value / 1e3).toPrecision(4)}k`;
  if (size > 0 && size < 1e-4) return value.toExponential().replace('-', '−');
  return value.toFixed(decimals).replace('-', '−');
}
