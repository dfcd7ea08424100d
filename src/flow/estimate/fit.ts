/** Whether a model fits, said before it loads. */
import type { ModelOutline } from './outline.ts';
import { PromptError } from '../pipelines/options.ts';
import { DoesNotFitError, rehearse } from './rehearse.ts';
import type { Plan, Rehearsal, Stage } from './rehearse.ts';

/** What is at work when most memory is taken. */
export const places: Record<Stage, string> = {
  text: 'in the text encoder',
  encoder: 'in the image encoder',
  network: 'in the U-Net',
  decoder: 'in the decoder',
  safety: 'in the safety checker',
};

/** Does it fit the adapter's limits, and into `available` bytes where that is known? */
export const fits = ({ peak, refused }: Rehearsal, available = Infinity): boolean =>
  refused === undefined && peak <= available;

/**
 * What else is wrong with a plan is left to the sampling itself to say.
 * @throws DoesNotFitError with what it takes, what there is, and what would fit
 */
export async function checkFit(outline: ModelOutline, plan: Plan, available?: number): Promise<Rehearsal | undefined> {
  const need = await rehearse(outline, shortened(plan, outline)).catch((error: Error) => {
    if (!(error instanceof PromptError)) throw error;
    return undefined;
  });
  if (need && !fits(need, available)) throw await doesNotFit(outline, plan, need, available);
  return need;
}

/** What memory depends on: one batch, and as many steps as schedulers look back on. */
function shortened({ count = 1, batchSize = count, steps, strength, ...plan }: Plan, outline: ModelOutline): Plan {
  const all = steps ?? outline.defaults.steps;
  const few = outline.kind === 'refiner' || strength !== undefined ? all : Math.min(all, 5);
  return { ...plan, count: Math.min(count, batchSize), batchSize, steps: few, strength };
}

/** Why a plan that was rehearsed does not fit, and smaller plans that do. */
export async function doesNotFit(
  outline: ModelOutline,
  plan: Plan,
  need: Rehearsal,
  available?: number,
): Promise<DoesNotFitError> {
  const weights = Object.values(need.parts).reduce((n, part) => n + part.bytes, 0);
  const batch = Math.min(need.count, plan.batchSize ?? need.count);
  const lacking = available !== undefined && need.peak > available;
  const lines = [
    lacking
      ? `does not fit: ${size(need.peak)} of GPU memory needed, ${size(available)} available`
      : 'does not fit: an array is larger than this adapter can have',
    `  ${outline.name}, ${batch} image${batch > 1 ? 's' : ''} of ${need.width} × ${need.height} at once, ${need.dtype}`,
    `  weights ${size(weights)}, the rest up to ${size(need.peak - weights)} ${places[need.peakIn]}`,
    ...(need.refused?.split('\n').slice(0, 2) ?? []).map((line) => `  ${line.trim()}`),
  ];
  const ways = await smaller(outline, plan, need, available);
  return new DoesNotFitError([...lines, ...ways.map((way) => `  ${way}`)].join('\n'));
}

/** Side of the tiles that are proposed. */
const TILE = 256;

/** Flags that make it fit, and what it takes with them. */
async function smaller(outline: ModelOutline, plan: Plan, need: Rehearsal, available?: number): Promise<string[]> {
  const found: string[] = [];
  const attempt = async (flags: string, change: Plan): Promise<boolean> => {
    const result = await rehearse(outline, shortened({ ...plan, ...change }, outline));
    const enough = fits(result, available);
    if (enough) found.push(`try ${flags}: ${size(result.peak)}`);
    return enough;
  };
  const several = Math.min(need.count, plan.batchSize ?? need.count) > 1;
  if (several) await attempt('--batch_size 1', { batchSize: 1 });
  if (need.dtype === 'f32') await attempt('--dtype f16', { dtype: 'f16' });
  if (need.peakIn === 'decoder' && !plan.vaeTile && Math.max(need.height, need.width) > TILE)
    await attempt(`--vae_tile ${TILE}`, { vaeTile: TILE });
  if (several && need.dtype === 'f32' && !found.length)
    await attempt('--batch_size 1 --dtype f16', { batchSize: 1, dtype: 'f16' });
  for (let { height, width } = need; Math.min(height, width) >= 128;) {
    [height, width] = [height, width].map((side) => Math.round(side / 128) * 64);
    if (await attempt(`--height ${height} --width ${width}`, { height, width })) break;
  }
  return found.length ? found : ['neither smaller sizes nor --dtype f16 make it fit'];
}

/** 5.6 GiB */
const size = (bytes: number): string => {
  const [unit, name] = bytes < 2 ** 30 ? [2 ** 20, 'MiB'] : [2 ** 30, 'GiB'];
  return `${(bytes / unit).toFixed(1)} ${name}`;
};
