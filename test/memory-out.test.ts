import { execFile, execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { packagedAdapterFolders } from '#platform';
import { Gpu, GpuArray, OutOfMemoryError } from '../src/kernels/index.ts';
import { square } from '../src/kernels/unary.ts';
import { skip } from './skip.ts';

const MiB = 2 ** 20;
const floats = (bytes: number) => bytes / 4;

/** This file runs itself again, in a process whose address space is then limited. */
if (process.env.RECTIFLOW_PART) await runShort();
else await runTests();

/**
 * Ask for what only fits when pooled memory is given back; then for more than there is; then go on. On SwiftShader, whose
 * memory is the process's and which says when it is used up; lavapipe crashes.
 */
async function runShort(): Promise<void> {
  const gpu = await Gpu.create({ adapter: 'SwiftShader' });
  const small = gpu.array([1000], new Float32Array(1000).fill(3));
  const { output } = square.forward(gpu, [small], {}); // compiled while there is memory for that
  await gpu.idle();
  const size = Number(/VmSize:\s*(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))![1]) * 1024;
  execFileSync('prlimit', [`--pid=${process.pid}`, `--as=${size + 900 * MiB}`]);

  const fill = async (bytes: number, count: number): Promise<[arrays: GpuArray[], error?: Error]> => {
    const arrays: GpuArray[] = [];
    try {
      while (arrays.length < count) {
        arrays.push(gpu.zeros([floats(bytes)]));
        await gpu.idle();
      }
    } catch (error) {
      return [arrays, error as Error];
    }
    return [arrays];
  };
  const [first] = await fill(64 * MiB, 8);
  for (const array of first) array.dispose();
  const [larger, refused] = await fill(112 * MiB, 5);
  for (const array of larger) array.dispose();
  const [all, error] = await fill(64 * MiB, 100);
  for (const array of all) array.dispose();
  await gpu.trim();
  output.dispose();
  const { output: again } = square.forward(gpu, [small], {});
  const [nine] = await again.read();
  console.log(
    JSON.stringify({ refused: refused?.message, all: all.length, name: error?.name, message: error?.message, nine }),
  );
  process.exit(0);
}

async function runTests(): Promise<void> {
  const test = suite('memory-out');

  // Dawn's null adapter computes nothing, but has 512 MiB and says so when they are used up.
  test('an allocation that fails says how much was asked for and what to do', async () => {
    const gpu = await Gpu.create({ adapter: 'null' });
    const arrays = Array.from({ length: 9 }, () => gpu.zeros([floats(64 * MiB)]));
    const error = await gpu.idle().catch((thrown: Error) => thrown);
    assert.instance(error, OutOfMemoryError);
    assert.match(
      (error as Error).message,
      /out of GPU memory: 64 MiB more could not be had\n {2}live {4}576 MiB in 9 arrays, with this one\n {2}pooled {2}0.00 MiB, after 0.00 MiB were given back for a second try\n.*checkpoint/,
    );
    // The error was told; the device goes on, and only the array without memory is refused.
    await gpu.idle();
    const failed = arrays.filter((array) => array.storage.failed);
    assert.is(failed.length, 1);
    assert.throws(() => gpu.copy(failed[0], arrays[0]), /copy: an operand has no memory/);
    for (const array of arrays) array.dispose();
    assert.is(gpu.memory().live, 0);
    assert.is(gpu.memory().pooled, 8 * 64 * MiB);
    gpu.zeros([floats(64 * MiB)]).dispose();
    await gpu.idle();
    gpu.destroy();
  });

  test('a buffer that could not be had is never handed out again, also when its array is freed first', async () => {
    const gpu = await Gpu.create({ adapter: 'null' });
    for (const array of Array.from({ length: 9 }, () => gpu.zeros([floats(64 * MiB)]))) array.dispose();
    assert.instance(await gpu.idle().catch((thrown: Error) => thrown), OutOfMemoryError);
    assert.is(gpu.memory().pooled, 8 * 64 * MiB);
    const again = Array.from({ length: 8 }, () => gpu.zeros([floats(64 * MiB)]));
    await gpu.idle();
    assert.ok(again.every((array) => !array.storage.failed));
    gpu.destroy();
  });

  test('pooled memory is given back before giving up', async () => {
    const gpu = await Gpu.create({ adapter: 'null' });
    for (const array of Array.from({ length: 7 }, () => gpu.zeros([floats(64 * MiB)]))) array.dispose();
    await gpu.idle();
    assert.is(gpu.memory().pooled, 7 * 64 * MiB);
    const larger = Array.from({ length: 4 }, () => gpu.zeros([floats(112 * MiB)]));
    await gpu.idle();
    assert.is(gpu.memory().pooled, 0);
    assert.ok(larger.every((array) => !array.storage.failed));
    gpu.destroy();
  });

  test('every read that waited is told, and none returns what was not computed', async () => {
    const gpu = await Gpu.create({ adapter: 'null' });
    const small = gpu.zeros([10]);
    const arrays = Array.from({ length: 9 }, () => gpu.zeros([floats(64 * MiB)]));
    const results = await Promise.allSettled([small.read(), small.read(), gpu.idle()]);
    for (const result of results) {
      assert.is(result.status, 'rejected');
      assert.instance((result as PromiseRejectedResult).reason, OutOfMemoryError);
    }
    for (const array of arrays) array.dispose();
    assert.is((await small.read()).length, 10);
    gpu.destroy();
  });

  const name = 'with a driver that is really out of memory, the error comes, and then work goes on';
  const missing = await whyNot();
  if (missing) skip(test, name, missing);
  else {
    test(name, async () => {
      const { stdout } = await promisify(execFile)(process.execPath, [fileURLToPath(import.meta.url)], {
        // A heap for each thread of the driver would take 64 MiB of addresses at random moments.
        env: { ...process.env, RECTIFLOW_PART: 'short', MALLOC_ARENA_MAX: '1' },
        timeout: 120_000,
      });
      const seen = JSON.parse(stdout.trim().split('\n').at(-1)!);
      assert.is(seen.refused, undefined);
      assert.is(seen.name, 'OutOfMemoryError');
      assert.match(seen.message, /64 MiB more could not be had/);
      assert.ok(seen.all >= 8 && seen.all <= 20, `${seen.all} arrays`);
      assert.is(seen.nine, 9);
    });
  }

  test.run();
}

async function whyNot(): Promise<string | undefined> {
  if (process.platform !== 'linux') return 'needs prlimit, which is for Linux';
  try {
    execFileSync('prlimit', ['--version']);
  } catch {
    return 'needs prlimit (util-linux)';
  }
  const drivers = [...packagedAdapterFolders(), '/usr/lib/chromium'].map((f) => join(f, 'vk_swiftshader_icd.json'));
  process.env.VK_DRIVER_FILES ??= process.env.VK_ICD_FILENAMES = drivers.find(existsSync) ?? '';
  const gpu = await Gpu.create({ adapter: 'SwiftShader' }).catch(() => undefined);
  gpu?.destroy();
  return gpu ? undefined : 'needs SwiftShader: lavapipe does not report a lack of memory, it crashes';
}
