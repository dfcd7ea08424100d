/**
 * npm run bench:peers [-- op … peer …]: the same work in other libraries, side by side with ours. The libraries are
 * installed into bench/peers/node_modules on demand. A whole run is kept under bench/results.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { commit, processors, processorSlug } from '../machine.ts';
import { WORKS } from '../work.ts';
import { compare, PEERS } from './compare.ts';
import { ratio, table, time } from './table.ts';

const ROUNDS = 7;
const BATCH_MS = 150;

const wanted = process.argv.slice(2);
const unknown = wanted.filter((name) => !(name in WORKS) && !PEERS.includes(name));
if (unknown.length) {
  console.error(`bench:peers: no ${unknown.join(', ')}; there are ${[...Object.keys(WORKS), ...PEERS].join(', ')}`);
  process.exit(2);
}
const problem = install();
if (problem) console.error(`bench:peers: ${problem}`);

const peers = PEERS.filter(
  (name) => name === 'ours' || !wanted.some((w) => PEERS.includes(w)) || wanted.includes(name),
);
const works = Object.fromEntries(
  Object.entries(WORKS).filter(([name]) => !wanted.some((w) => w in WORKS) || wanted.includes(name)),
);
const isWhole = peers.length === PEERS.length && Object.keys(works).length === Object.keys(WORKS).length;
const about = { processors, node: process.versions.node, commit, rounds: ROUNDS, batchMilliseconds: BATCH_MS };
console.log(`${processors}, Node ${about.node}, ${commit}\n`);

const started = performance.now();
const comparison = await compare({
  works,
  peers,
  rounds: ROUNDS,
  batch: BATCH_MS,
  progress: (text) => process.stderr.isTTY && process.stderr.write(`\r\x1b[K${text}`),
  print(row) {
    const cells = peers.map((name) => `${name} ${time(row, name)}${name === 'ours' ? '' : ` ×${ratio(row, name)}`}`);
    if (process.stderr.isTTY) process.stderr.write('\r\x1b[K');
    console.log(`${row.name.padEnd(16)} ${cells.join('   ')}`);
  },
});
const shares = comparison.rows.flatMap((row) => Object.values(row.peers).flatMap((cell) => cell.foreign ?? []));
const noise = {
  minutes: (performance.now() - started) / 60_000,
  meanForeignShare: shares.reduce((a, b) => a + b, 0) / Math.max(1, shares.length),
  largestForeignShare: Math.max(0, ...shares),
};
const percent = (share: number) => `${(100 * share).toFixed(0)} %`;
const text = [
  `${processors}, Node ${about.node}, commit ${commit}`,
  `${ROUNDS} rounds of batches of at least ${BATCH_MS} ms, ${noise.minutes.toFixed(0)} minutes; other processes used ` +
    `${percent(noise.meanForeignShare)} of the processors (${percent(noise.largestForeignShare)} at worst)`,
  '',
  table(comparison),
].join('\n');
console.log(`\n${text}`);
if (isWhole) {
  mkdirSync('bench/results', { recursive: true });
  const file = `bench/results/peers-${processorSlug}`;
  writeFileSync(`${file}.json`, `${JSON.stringify({ ...about, ...noise, ...comparison }, null, 2)}\n`);
  writeFileSync(`${file}.txt`, text);
  console.log(`${file}.json`);
}

/** @returns what stands in the way of some of the libraries */
function install(): string | undefined {
  const folder = 'bench/peers';
  const { dependencies } = JSON.parse(readFileSync(`${folder}/package.json`, 'utf8')) as Record<string, object>;
  const isThere = ([name, version]: [string, string]) => {
    const file = `${folder}/node_modules/${name}/package.json`;
    return existsSync(file) && JSON.parse(readFileSync(file, 'utf8')).version === version;
  };
  if (Object.entries(dependencies).every(isThere)) return undefined;
  console.log('installing the other libraries into bench/peers/node_modules (about 800 MB)');
  // Their install scripts fetch GPU libraries that nothing here uses, and fail where they may not.
  const words = ['install', '--ignore-scripts', '--no-audit', '--no-fund', '--no-package-lock', '--loglevel=error'];
  const { status, stderr } = spawnSync('npm', words, {
    cwd: folder,
    encoding: 'utf8',
    shell: process.platform === 'win32',
  });
  return status === 0 ? undefined : `npm install failed: ${stderr.trim().split('\n')[0]}`;
}
