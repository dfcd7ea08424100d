import { spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

const LIMIT = 240; // seconds for one example; the longest takes about 10 on two quiet cores
const files = readdirSync('examples').filter((file) => file.endsWith('.ts'));

/** Run an example as its first lines say. */
function run(file: string): Promise<{ status: number | null; output: string }> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, ['scripts/run.mjs', `examples/${file}`], { timeout: 1000 * LIMIT });
    let output = '';
    child.stdout.on('data', (data) => (output += data));
    child.stderr.on('data', (data) => (output += data));
    child.on('close', (status) => resolve({ status, output }));
  });
}

const test = suite('examples');

for (const file of files) {
  test(`${file} finds what it states`, async () => {
    const { status, output } = await run(file);
    assert.is(status, 0, `${file}: exit status ${status}, or stopped after ${LIMIT} s\n${output}`);
    for (const line of output.split('\n')) if (line.startsWith('skipped:')) console.log(`  ${line} (${file})`);
  });
}

test('every example says how to run it and is in the list', () => {
  const list = readFileSync('examples/README.md', 'utf8');
  for (const file of files) {
    assert.match(readFileSync(`examples/${file}`, 'utf8'), `node scripts/run.mjs examples/${file}`);
    assert.match(list, `](${file})`);
  }
});

test.run();
