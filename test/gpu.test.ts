import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Gpu } from '../src/kernels/index.ts';
import { inspect, specialise } from '../src/kernels/shader.ts';
import { sizeClass } from '../src/kernels/pool.ts';
import { collectGarbage } from './garbage.ts';

const code = `// y = k x
const THREADS = 64u;
struct Shape { n: u32, k: f32 }
@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
fn scaled(v: f32) -> f32 { return v * shape.k; }
@compute @workgroup_size(THREADS)
fn forward(@builtin(global_invocation_id) id: vec3u) { if (id.x < shape.n) { y[id.x] = scaled(x[id.x]); } }
@compute @workgroup_size(1)
fn reset() { y[0] = 0.0; }
`;
const gpu = await Gpu.create();
const times = (x: ReturnType<Gpu['array']>, k: number) => {
  const y = gpu.empty(x.shape);
  gpu.run(code, 'forward', { n: x.size, k }, [x, y], [Math.ceil(x.size / 64)]);
  return y;
};

const test = suite('gpu');

test('a kernel gets its uniforms by field name and its arrays in order', async () => {
  const y = times(gpu.array([3], [1, 2, 3]), 2);
  assert.equal([...(await y.read())], [2, 4, 6]);
});

test('commands run in the order they were given, writes among them', async () => {
  const x = gpu.array([2], [1, 1]);
  const results = [];
  for (let i = 0; i < 300; i++) {
    results.push(times(x, i));
    gpu.write(x, [i, i]);
  }
  const got = await Promise.all(results.map((r) => r.read()));
  got.forEach((v, i) => assert.is(v[0], i * (i ? i - 1 : 1)));
  for (const r of results) r.dispose();
});

test('a freed buffer serves the next array of its size class', async () => {
  await collectGarbage();
  const before = gpu.memory();
  const a = gpu.empty([1000]);
  const { id } = a.storage;
  a.dispose();
  const b = gpu.empty([1010]);
  assert.is(b.storage.id, id);
  b.dispose();
  assert.is(gpu.memory().live, before.live);
});

test('a view shares memory until both are freed', async () => {
  await collectGarbage();
  const live = gpu.memory().live;
  const a = gpu.array([2, 3], [1, 2, 3, 4, 5, 6]);
  const b = a.view([3, -1]);
  a.dispose();
  assert.equal(b.shape, [3, 2]);
  assert.equal([...(await b.read())], [1, 2, 3, 4, 5, 6]);
  b.dispose();
  assert.is(gpu.memory().live, live);
});

test('two thousand rounds leave memory flat', async () => {
  const own = await Gpu.create();
  const round = () => {
    using x = own.array([5000], new Float32Array(5000));
    using y = own.empty([5000]);
    own.run(code, 'forward', { n: 5000, k: 3 }, [x, y], [79]);
  };
  for (let i = 0; i < 10; i++) round();
  await own.idle();
  const { live, pooled } = own.memory();
  for (let i = 0; i < 2000; i++) round();
  await own.idle();
  assert.equal([own.memory().live, own.memory().pooled], [live, pooled]);
  own.destroy();
});

test('an array nobody freed is found by the collector and counted', async () => {
  const { leaked } = gpu.memory();
  for (let i = 0; i < 10; i++) gpu.empty([7]);
  for (let i = 0; i < 20 && gpu.memory().leaked === leaked; i++) {
    await collectGarbage();
  }
  assert.ok(gpu.memory().leaked > leaked);
});

test('a kernel that does not compile says where', async () => {
  const other = await Gpu.create();
  const y = other.empty([1]);
  other.run(
    '// broken\n@group(0) @binding(0) var<storage, read_write> y: array<f32>;\n@compute @workgroup_size(1) fn f() { y[0] = nothing; }',
    'f',
    {},
    [y],
    [1],
  );
  try {
    await other.idle();
    assert.unreachable();
  } catch (error) {
    assert.match((error as Error).message, /f in "\/\/ broken" does not compile[\s\S]*line 3/);
  }
  other.destroy();
});

test('wrong calls name the op, the operand and the fix', () => {
  const x = gpu.array([2], [1, 2]);
  assert.throws(() => gpu.run(code, 'forward', { n: 2 }, [x, x], [1]), /wants the uniform k/);
  assert.throws(() => gpu.run(code, 'forward', { n: 2, k: 1 }, [x], [1]), /binds 2 arrays \(x, y\), 1 given/);
  assert.throws(() => gpu.run(code, 'forward', { n: 2, k: 1 }, [x, x], [70000]), /65535/);
  assert.throws(() => gpu.array([3], [1, 2]), /2 numbers for 3 places/);
  assert.throws(() => gpu.empty([2, -1]), /-1 is not a size/);
  assert.throws(() => gpu.empty([1, 2 ** 40]), /more than this adapter binds/);
  x.dispose();
  assert.throws(() => x.view(), /already freed/);
});

test('an array of another device is refused', async () => {
  const other = await Gpu.create();
  const x = other.array([2], [1, 2]);
  const y = gpu.empty([2]);
  assert.throws(() => gpu.run(code, 'forward', { n: 2, k: 1 }, [x, y], [1]), /another device/);
  other.destroy();
});

test('WGSL is read: entries, the bindings they use, and where uniforms lie', () => {
  const entries = inspect(code);
  assert.equal([...entries.keys()], ['forward', 'reset']);
  assert.equal(
    entries.get('forward')!.bindings.map((b) => b.name),
    ['shape', 'x', 'y'],
  );
  assert.equal(
    entries.get('reset')!.bindings.map((b) => b.name),
    ['y'],
  );
  assert.equal(entries.get('forward')!.uniform, {
    bytes: 16,
    fields: [
      { name: 'n', type: 'u32', offset: 0 },
      { name: 'k', type: 'f32', offset: 4 },
    ],
  });
  assert.match(specialise(code, { THREADS: 32 }), /const THREADS = 32u;/);
  assert.throws(() => specialise(code, { TILE: 4 }), /no tunable "const TILE/);
});

test('size classes waste at most a quarter', () => {
  for (let n = 257; n < 1e7; n = Math.ceil(n * 1.37))
    assert.ok(sizeClass(n) >= n && sizeClass(n) <= n * 1.25 + 256, String(n));
});

test.after(() => gpu.destroy());
test.run();
