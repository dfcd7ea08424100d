/** A run as text: what is right, what takes how long, and how that compares with PyTorch. */
import type { AdapterFacts } from './adapter.ts';
import type { Gap } from './gap.ts';
import type { NetworkTime } from './networks.ts';
import type { SweepRow } from './sweep.ts';
import type { TorchResults } from './torch.ts';
import type { StepTime } from './training.ts';
import type { VariantCheck } from './variants.ts';

/** All of a run. */
export interface GpuReport {
  adapter: string;
  processors: string;
  node: string;
  commit: string;
  /** Small shapes: it says that the script works, and nothing of the machine. */
  small: boolean;
  parts: {
    adapter?: AdapterFacts;
    torch?: TorchResults;
    variants?: VariantCheck[];
    networks?: NetworkTime[];
    sweep?: SweepRow[];
    training?: StepTime[];
    gap?: Gap;
  };
  /** Part → why. */
  leftOut: Record<string, string>;
}

export function tableOf({ adapter, processors, node, commit, small, parts, leftOut }: GpuReport): string {
  const { torch } = parts;
  const lines = [adapter, `${processors}, Node ${node}, commit ${commit}${small ? ', small shapes' : ''}`];
  if (torch) lines.push(`PyTorch ${torch.torch} on ${torch.device}`);
  for (const [name, why] of Object.entries(leftOut)) lines.push(`${name} left out: ${why.split('\n')[0]}`);
  const section = (title: string, rows: string[]) => rows.length && lines.push('', title, ...rows);

  const { variants = [] } = parts;
  const wrong = variants.filter(({ error }) => error);
  if (variants.length) section(`kernel variants: ${variants.length - wrong.length} of ${variants.length} right`, wrong.map((v) => `  ${v.op} ${v.variant} ${v.dtype}${v.robust ? '' : ', not robust'}: ${v.error}`)); // prettier-ignore

  const best = (name: NetworkTime['name']) =>
    least(Object.values(torch?.networks ?? {}).map((network) => network[name]?.warm));
  section(
    'networks, ms               warm   fastest     first   PyTorch fp16, best   ratio',
    (parts.networks ?? []).map(({ name, dtype, warm, fastest, cold }) => {
      const theirs = best(name);
      return `  ${`${name} ${dtype}`.padEnd(20)}${number(warm, 2, 9)}${number(fastest, 2, 10)}${number(cold, 0, 10)}${number(theirs, 2, 21)}${ratio(warm, theirs)}`;
    }),
  );
  section(
    'shapes, TFLOP/s                        f16       f32   PyTorch f16   share',
    [...new Set((parts.sweep ?? []).map(nameOf))].map((name) => {
      const of = (dtype: string) =>
        parts.sweep!.find((row) => nameOf(row) === name && row.dtype === dtype)?.tflops ?? NaN;
      const theirs = torch?.shapes.find((row) => nameOf(row) === name)?.tflops ?? NaN;
      const share = of('f16') / theirs;
      return `  ${name.padEnd(32)}${number(of('f16'), 2, 9)}${number(of('f32'), 2, 10)}${number(theirs, 1, 14)}${Number.isFinite(share) ? `${(100 * share).toFixed(0).padStart(6)} %` : ''}`;
    }),
  );
  section(
    'training step of reflow, ms     warm   first, s      GiB   PyTorch   ratio',
    (parts.training ?? []).map((step) => {
      const theirs = torch?.training.find(
        (t) =>
          t.batchSize === step.batchSize &&
          t.mixedPrecision === step.mixedPrecision &&
          t.gradientCheckpointing === step.gradientCheckpointing,
      )?.warm;
      const name = `batch ${step.batchSize}, ${step.mixedPrecision === 'no' ? 'f32' : 'f16'}${step.gradientCheckpointing ? ', checkpointed' : ''}`;
      return step.error
        ? `  ${name}: ${step.error.split('\n')[0]}`
        : `  ${name.padEnd(26)}${number(1000 * step.warm, 1, 9)}${number(step.first, 1, 11)}${number(step.peak / 2 ** 30, 2, 9)}${number(theirs, 1, 10)}${ratio(1000 * step.warm, theirs)}`;
    }),
  );
  const { gap } = parts;
  if (gap) section('a dispatch, µs', [`  dependent ${gap.dependent.toFixed(2)}, independent ${gap.independent.toFixed(2)}, of that on the host ${gap.host.toFixed(2)}`]); // prettier-ignore
  return `${lines.join('\n')}\n`;
}

const nameOf = ({ kind, shape }: { kind: string; shape: number[] }): string => `${kind} ${shape.join(' ')}`;

const least = (values: (number | undefined)[]): number | undefined => {
  const known = values.filter((v): v is number => v !== undefined);
  return known.length ? Math.min(...known) : undefined;
};

const number = (x: number | undefined | null, digits: number, width: number): string =>
  (typeof x === 'number' && Number.isFinite(x) ? x.toFixed(digits) : '–').padStart(width);

const ratio = (ours: number, theirs: number | undefined): string =>
  theirs ? `${(ours / theirs).toFixed(2).padStart(8)}` : '';
