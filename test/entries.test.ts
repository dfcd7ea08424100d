import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

const test = suite('entries');

test('the built package: a small engine for browsers, and three entries with one engine between them', () => {
  const build = spawnSync(process.execPath, ['scripts/build.mjs'], { encoding: 'utf8' });
  assert.is(build.status, 0, build.stdout + build.stderr);
  console.log(`\n${build.stdout.trim().replace(/^/gm, '  ')}`);

  const folder = mkdtempSync(join(tmpdir(), 'rectiflow-entries-'));
  try {
    mkdirSync(join(folder, 'node_modules'));
    symlinkSync(resolve('.'), join(folder, 'node_modules', 'rectiflow'), 'junction');
    writeFileSync(
      join(folder, 'main.mjs'),
      `import * as engine from 'rectiflow/engine';
      import * as library from 'rectiflow';
      import * as node from 'rectiflow/node';
      const missing = (from, to) => Object.keys(from).filter((name) => from[name] !== to[name]);
      const gpu = await engine.init();
      const product = library.matmul(library.tensor([1, 2, 3, 4], [2, 2]), node.tensor([5, 6, 7, 8], [2, 2]));
      console.log(JSON.stringify({
        product: [...(await product.read())],
        missing: [missing(engine, library), missing(library, node)],
        own: [Object.keys(library).length > Object.keys(engine).length, 'openModelFolder' in node, 'openModelFolder' in library],
      }));
      gpu.destroy();`,
    );
    const run = spawnSync(process.execPath, [join(folder, 'main.mjs')], { encoding: 'utf8' });
    assert.is(run.status, 0, run.stderr);
    assert.equal(JSON.parse(run.stdout), {
      product: [19, 22, 43, 50],
      missing: [[], []],
      own: [true, true, false],
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test.run();
