/**
 * npm run bench [-- part …]: check and time the kernels, print a table, and keep a whole run under bench/results. Named
 * parts include their long lines; 'soak' and full-size steps of training only run when named.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { init } from '../src/tensor/index.ts';
import { processorSlug, slug } from './machine.ts';
import { ALL_PARTS, bench, LARGE_PARTS, textOf } from './report.ts';

const LONGEST_MS = 700;
const SOAK_STEPS = 2000;

const wanted = process.argv.slice(2);
const known = [...ALL_PARTS, ...LARGE_PARTS];
const unknown = wanted.filter((name) => !known.includes(name));
if (unknown.length) {
  console.error(`bench: no part ${unknown.join(', ')}; there are ${known.join(', ')}`);
  process.exit(2);
}

const gpu = await init();
const report = await bench({
  parts: wanted.length ? wanted : ALL_PARTS.filter((name) => name !== 'soak'),
  seconds: 1,
  longest: wanted.length ? Infinity : LONGEST_MS,
  soakSteps: SOAK_STEPS,
});
if (!wanted.length) {
  mkdirSync('bench/results', { recursive: true });
  const file = `bench/results/${slug(report.adapter)}-${processorSlug}`;
  writeFileSync(`${file}.json`, `${JSON.stringify(report, null, 2)}\n`);
  writeFileSync(`${file}.txt`, textOf(report));
  console.log(`\n${file}.json`);
}
if (report.soak?.some(({ flat }) => !flat)) {
  console.error('bench: memory grew during training');
  process.exitCode = 1;
}
gpu.destroy();
