/**
 * npm run bench:peers [-- op … peer …]: the same work in other libraries, side by side with ours. The libraries are
 * installed into bench/peers/node_modules on demand. Rows of all libraries are kept under bench/results.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { commit, processors, processorSlug } from '../machine.ts';
import { WORKS } from '../work.ts';
import { compare, PEERS } from './compare.ts';
import type { Comparison, Row } from './compare.ts';
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
const file = `bench/results/peers-${processorSlug}`;
const isKept = peers.length === PEERS.length;
const kept: Comparison =
  isKept && existsSync(`${file}.json`) ? JSON.parse(readFileSync(`${file}.json`, 'utf8')) : none();
console.log(`${processors}, Node ${process.versions.node}, ${commit}\n`);

// Frozen processes would outlive a stopped comparison; leaving by exit() ends them.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(130));

const comparison = await compare({
  works,
  peers,
  rounds: ROUNDS,
  batch: BATCH_MS,
  progress: (text) => process.stderr.isTTY && process.stderr.write(`\r\x1b[K${text}`),
  print(row, versions) {
    const cells = peers.map((name) => `${name} ${time(row, name)}${name === 'ours' ? '' : ` ×${ratio(row, name)}`}`);
    if (process.stderr.isTTY) process.stderr.write('\r\x1b[K');
    console.log(`${row.name.padEnd(16)} ${cells.join('   ')}`);
    if (isKept) keep(row, versions);
  },
});
console.log(`\n${textOf(comparison)}`);
if (isKept) console.log(`${file}.json`);

/** Each row is a sitting of its own, so rows of several runs stand side by side; a new one replaces the old. */
function keep(row: Row, versions: Record<string, string>): void {
  const rows = [...kept.rows.filter(({ name }) => name !== row.name), row];
  kept.rows = Object.keys(WORKS).flatMap((name) => rows.find((r) => r.name === name) ?? []);
  kept.versions = versions;
  mkdirSync('bench/results', { recursive: true });
  const about = { processors, node: process.versions.node, batchMilliseconds: BATCH_MS };
  writeFileSync(`${file}.json`, `${JSON.stringify({ ...about, versions, rows: kept.rows }, null, 2)}\n`);
  writeFileSync(`${file}.txt`, textOf(kept));
}

function none(): Comparison {
  return { versions: {}, rows: [] };
}

function textOf(comparison: Comparison): string {
  const { rows } = comparison;
  const shares = rows.flatMap((row) => Object.values(row.peers).flatMap((cell) => cell.foreign ?? []));
  const percent = (share: number) => `${(100 * share).toFixed(0)} %`;
  const mean = percent(shares.reduce((a, b) => a + b, 0) / Math.max(1, shares.length));
  const rounds = [...new Set(rows.map((row) => row.rounds))].sort().join(', ');
  return [
    `${processors}, Node ${process.versions.node}, commit ${[...new Set(rows.map((row) => row.commit))].join(', ')}`,
    `${rounds} rounds of batches of at least ${BATCH_MS} ms; other processes used ${mean} of the processors` +
      ` (${percent(Math.max(0, ...shares))} in the worst cell)`,
    '',
    table(comparison),
  ].join('\n');
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
