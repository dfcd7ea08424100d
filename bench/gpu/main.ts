/**
 * One run on a GPU: what it is, whether every kernel variant is right there, how fast products, convolutions and whole
 * networks are, cold and warm, a training step, and PyTorch at the same work. Parts that the time does not allow are left
 * out and said; results are written after each part.
 */
import { mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { currentGpu, init } from '../../src/tensor/index.ts';
import { commit, processors, slug } from '../machine.ts';
import { aboutAdapter } from './adapter.ts';
import { measureGap } from './gap.ts';
import { timeNetworks } from './networks.ts';
import { sweep } from './sweep.ts';
import { tableOf } from './table.ts';
import type { GpuReport } from './table.ts';
import { torchBaseline } from './torch.ts';
import { timeTraining } from './training.ts';
import { checkVariants } from './variants.ts';

/** A part, and the seconds without which it is not begun. */
type Part = [name: keyof GpuReport['parts'], seconds: number, run: () => Promise<unknown>];

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '9' },
    out: { type: 'string', default: 'bench/results' },
    only: { type: 'string', multiple: true },
    python: { type: 'string', default: 'python3' },
    small: { type: 'boolean', default: false },
  },
});
const end = performance.now() + 60_000 * Number(values.minutes);
if (!(Number(values.minutes) > 0)) {
  console.error(`--minutes is ${values.minutes}, must be above 0`);
  process.exit(2);
}
const left = () => (end - performance.now()) / 1000;
const small = values.small;
const say = (line: string) => console.log(line);

await init({ disable: ['timestamp_quantization'] });
const gpu = currentGpu();
const report: GpuReport = {
  adapter: gpu.capabilities.name,
  processors,
  node: process.versions.node,
  commit,
  small,
  parts: {},
  leftOut: {},
};
const here = dirname(fileURLToPath(import.meta.url));
const parts: Part[] = [
  ['adapter', 1, async () => aboutAdapter()],
  ['torch', 20, () => torchBaseline(here, { python: values.python, seconds: Math.min(150, left() / 3), small, say })],
  ['variants', 20, () => checkVariants({ small, say })],
  ['networks', 60, () => timeNetworks({ small, say, seconds: () => left() - 60 })],
  ['sweep', 30, () => sweep({ small, say, seconds: () => Math.min(90, left() - 45) })],
  ['training', 40, () => timeTraining({ small, say, seconds: () => left() - 15 })],
  ['gap', 5, () => measureGap({ say })],
];
const unknown = (values.only ?? []).filter((name) => !parts.some(([known]) => known === name));
if (unknown.length) {
  console.error(`--only: no part ${unknown.join(', ')}\n  there are ${parts.map(([name]) => name).join(', ')}`);
  process.exit(2);
}
const file = join(values.out, `gpu-${slug(report.adapter)}${small ? '-small' : ''}`);
mkdirSync(values.out, { recursive: true });
for (const [name, seconds, run] of parts) {
  if (values.only && !values.only.includes(name)) continue;
  if (left() < seconds) {
    report.leftOut[name] = `${left().toFixed(0)} s were left, it wants ${seconds}`;
    say(`\n${name}: left out, ${report.leftOut[name]}`);
    continue;
  }
  say(`\n${name}   (${left().toFixed(0)} s left)`);
  const start = performance.now();
  try {
    report.parts[name] = (await run()) as never;
  } catch (error) {
    report.leftOut[name] = (error as Error).message;
    say(`${name}: failed: ${(error as Error).stack}`);
  }
  say(`${name}: ${((performance.now() - start) / 1000).toFixed(1)} s`);
  write('json', `${JSON.stringify(report, null, 2)}\n`);
  write('txt', tableOf(report));
}
say(`\n${tableOf(report)}\n${file}.json`);
gpu.destroy();
process.exit(Object.keys(report.leftOut).length || report.parts.variants?.some(({ error }) => error) ? 1 : 0);

function write(kind: string, text: string): void {
  writeFileSync(`${file}.${kind}.part`, text);
  renameSync(`${file}.${kind}.part`, `${file}.${kind}`);
}
