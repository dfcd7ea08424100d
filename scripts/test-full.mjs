// npm run test:full -- <folder> [filter]: the golden group "full" in f32 and in f16, one process for each case, with the time
// and the most memory that each took. <folder> holds MANIFEST.json; RECTIFLOW_GOLDEN names it otherwise.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { root } from './bundle.mjs';

const [folder = process.env.RECTIFLOW_GOLDEN, filter = ''] = process.argv.slice(2);
if (!folder) {
  console.error('which golden data?\n  npm run test:full -- <folder with MANIFEST.json>');
  process.exit(2);
}
const { cases: golden } = JSON.parse(readFileSync(join(folder, 'MANIFEST.json'), 'utf8'));
const ids = golden.filter(({ group, id }) => group === 'full' && id.includes(filter)).map(({ id }) => id);
const scratch = mkdtempSync(join(tmpdir(), 'rectiflow-full-'));
process.on('exit', () => rmSync(scratch, { recursive: true }));

const seconds = (s) => `${s.toFixed(1).padStart(8)} s`;
const GiB = (bytes) => `${(bytes / 2 ** 30).toFixed(2)} GiB`.padStart(10);
let failed = 0;
console.log(`${'case'.padEnd(28)}dtype        time   processor  GPU memory    process  worst error (limit)`);
for (const id of ids) {
  for (const dtype of ['f32', 'f16']) {
    const json = join(scratch, 'result.json');
    const command = [
      'cli',
      'verify',
      folder,
      '--group',
      'full',
      '--filter',
      `^${id}$`,
      '--dtype',
      dtype,
      '--json',
      json,
    ];
    rmSync(json, { force: true });
    const { stdout, stderr, status } = spawnSync(process.execPath, command, { cwd: root, encoding: 'utf8' });
    let line = `${id.padEnd(28)}${dtype}  `;
    if (status === 0) {
      const { cases, processorSeconds, maxResidentBytes } = JSON.parse(readFileSync(json, 'utf8'));
      const [{ milliseconds, peakBytes, worst }] = cases;
      line += `${seconds(milliseconds / 1000)}  ${seconds(processorSeconds)}  ${GiB(peakBytes)} ${GiB(maxResidentBytes)}`;
      line += `  ${worst.error.toExponential(1)} ${worst.name} (${worst.tolerance.toExponential(1)})`;
    } else {
      failed++;
      line += `failed\n${stdout}${stderr}`;
    }
    console.log(line);
  }
}
let cases = 2 * ids.length;
if ('layouts'.includes(filter)) {
  const { status } = spawnSync(
    process.execPath,
    [join(root, 'scripts/run.mjs'), join(root, 'test/full-layouts.ts'), folder, scratch],
    { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] },
  );
  cases++;
  if (status) failed++;
}
console.log(`${cases - failed} passed, ${failed} failed`);
if (failed || !cases) process.exitCode = 1;
