/** npm run bench [-- part …]: time the kernels, print a table, and keep it under bench/results. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { init } from '../src/tensor/index.ts';
import { measure, row } from './measure.ts';
import type { Result } from './measure.ts';
import { attentionLines, convLines, matmulLines, normLines, trainingLines } from './suite.ts';

const parts = {
  matmul: matmulLines,
  conv: convLines,
  attention: attentionLines,
  norms: normLines,
  training: trainingLines,
};
const wanted = process.argv.slice(2);
const unknown = wanted.filter((name) => !(name in parts));
if (unknown.length) {
  console.error(`bench: no part ${unknown.join(', ')}; there are ${Object.keys(parts).join(', ')}`);
  process.exit(2);
}

const gpu = await init();
const adapter = gpu.capabilities.name;
console.log(`${adapter}\n${cpus().length} × ${cpus()[0]?.model}, Node ${process.versions.node}\n`);
const results: Result[] = [];
for (const [name, lines] of Object.entries(parts)) {
  if (wanted.length && !wanted.includes(name)) continue;
  results.push(...(await measure(lines())));
}

const commit = git('rev-parse', '--short', 'HEAD') + (git('status', '--porcelain', 'src') ? ' with changes' : '');
const name = adapter
  .toLowerCase()
  .replace(/[^a-z0-9]+/g, '-')
  .slice(0, 40)
  .replace(/^-|-$/g, '');
mkdirSync('bench/results', { recursive: true });
const about = { adapter, processors: `${cpus().length} × ${cpus()[0]?.model}`, node: process.versions.node, commit };
if (!wanted.length) {
  writeFileSync(`bench/results/${name}.json`, `${JSON.stringify({ ...about, results }, null, 2)}\n`);
  writeFileSync(`bench/results/${name}.txt`, `${Object.values(about).join('\n')}\n\n${results.map(row).join('\n')}\n`);
  console.log(`\nbench/results/${name}.json`);
}
gpu.destroy();

function git(...words: string[]): string {
  try {
    return execFileSync('git', words, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  } catch {
    return '';
  }
}
