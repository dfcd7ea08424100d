/**
 * npm run bench [-- part …]: check and time the kernels, print a table, and keep a whole run under bench/results. Named
 * parts include their long lines; 'soak', 'model' and full-size steps of training only run when named. `model --stage unet`
 * runs one of the model's stages.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { builtIn } from '../src/flow/estimate/outline.ts';
import { init } from '../src/tensor/index.ts';
import { processorSlug, slug } from './machine.ts';
import { STAGES } from './model.ts';
import { ALL_PARTS, bench, LARGE_PARTS, textOf } from './report.ts';

const LONGEST_MS = 700;
const SOAK_STEPS = 2000;
const ONLY_NAMED = ['soak', 'model'];

const { positionals: wanted, values } = parseArgs({
  allowPositionals: true,
  options: { stage: { type: 'string', multiple: true, default: [...STAGES] }, 'no-ops': { type: 'boolean' } },
});
refuseUnknown('part', wanted, [...ALL_PARTS, ...LARGE_PARTS]);
refuseUnknown('stage', values.stage, STAGES);

const gpu = await init();
const report = await bench({
  parts: wanted.length ? wanted : ALL_PARTS.filter((name) => !ONLY_NAMED.includes(name)),
  seconds: 1,
  longest: wanted.length ? Infinity : LONGEST_MS,
  soakSteps: SOAK_STEPS,
  model: {
    model: builtIn.sd15,
    side: 512,
    stages: STAGES.filter((stage) => values.stage.includes(stage)),
    ops: !values['no-ops'],
  },
});
const whole = report.model?.length === STAGES.length ? '-model' : '';
if (!wanted.length || whole) {
  mkdirSync('bench/results', { recursive: true });
  const file = `bench/results/${slug(report.adapter)}-${processorSlug}${whole}`;
  writeFileSync(`${file}.json`, `${JSON.stringify(report, null, 2)}\n`);
  writeFileSync(`${file}.txt`, textOf(report));
  console.log(`\n${file}.json`);
}
if (report.soak?.some(({ flat }) => !flat)) {
  console.error('bench: memory grew during training');
  process.exitCode = 1;
}
gpu.destroy();

function refuseUnknown(what: string, names: readonly string[], known: readonly string[]): void {
  const unknown = names.filter((name) => !known.includes(name));
  if (!unknown.length) return;
  console.error(`bench: no ${what} ${unknown.join(', ')}; there are ${known.join(', ')}`);
  process.exit(2);
}
