import { readdirSync, readFileSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { floatToHalf, halfToFloat } from '../src/kernels/half.ts';
import { withHalves } from '../src/kernels/half-storage.ts';
import type { HalfStorage } from '../src/kernels/half-storage.ts';
import { narrow } from '../src/kernels/lanes.ts';
import { inspect } from '../src/kernels/shader.ts';
import { testGpu } from './check-op.ts';
import { skip } from './skip.ts';

const gpu = await testGpu();
const storages: HalfStorage[] = gpu.capabilities.f16 ? ['native', 'packed'] : ['packed'];
const test = suite('half-storage');
if (!gpu.capabilities.f16) skip(test, 'kernels with array<f16>', 'this adapter has no shader-f16');

/** A kernel around `body`, with x: array<f32> to read, y: array<f32> and z: array<vec4f> to write. */
const kernel = (body: string) => `// a test
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<storage, read_write> z: array<vec4f>;
${body}`;
const main = (body: string) =>
  kernel(`@compute @workgroup_size(1)\nfn main(@builtin(global_invocation_id) id: vec3u) {\n${body}\n}`);
/** The body of `main` after rewriting. */
const rewritten = (body: string, names = ['x', 'y', 'z']) =>
  /fn main\([^{]*\{\n([\s\S]*?)\n\}/.exec(withHalves(main(body), names, 'native'))![1];

test('loads and stores become calls, whatever stands in brackets or on the right', () => {
  assert.is(rewritten('let a = x[id.x];'), 'let a = load_half_x(u32(id.x));');
  assert.is(rewritten('y[id.x] = x[i + 1u] * 2.0;'), 'store_half_y(u32(id.x), load_half_x(u32(i + 1u)) * 2.0);');
  assert.is(rewritten('y[u32(x[0])] = 1.0;'), 'store_half_y(u32(u32(load_half_x(u32(0)))), 1.0);');
  assert.is(rewritten('z[i] = vec4f(z[i].x);'), 'store_half_z(u32(i), vec4f(load_half_z(u32(i)).x));');
  assert.is(
    rewritten('if (x[0] == y[1]) { y[2] = f(a[3], (b)); }'),
    'if (load_half_x(u32(0)) == load_half_y(u32(1))) { store_half_y(u32(2), f(a[3], (b))); }',
  );
  assert.is(
    rewritten('for (; x[i] > 0.0 && x[j] > 0.0; y[i] = 0.0) { }'),
    'for (; load_half_x(u32(i)) > 0.0 && load_half_x(u32(j)) > 0.0; store_half_y(u32(i), 0.0)) { }',
  );
});

test('a compound assignment reads first, and keeps its right side together', () => {
  assert.is(rewritten('y[i] += a - b;'), 'store_half_y(u32(i), load_half_y(u32(i)) + (a - b));');
  assert.is(rewritten('y[i] *= x[i];'), 'store_half_y(u32(i), load_half_y(u32(i)) * (load_half_x(u32(i))));');
});

test('other bindings, members, comments and hidden names stay as they are', () => {
  assert.is(rewritten('y[i] = x[i];', ['x']), 'y[i] = load_half_x(u32(i));');
  assert.is(rewritten('let a = p.x + s.y[0];'), 'let a = p.x + s.y[0];');
  assert.is(rewritten('/* x[0] = */ let a = 1.0; // y[i] = 2.0;'), ' let a = 1.0; ');
  assert.is(
    rewritten('{ let x = x[0]; let b = x; } let c = x[1];'),
    '{ let x = load_half_x(u32(0)); let b = x; } let c = load_half_x(u32(1));',
  );
  assert.is(rewritten('for (var y = 0u; y < 4u; y++) { }'), 'for (var y = 0u; y < 4u; y++) { }');
  const text = withHalves(kernel('fn f(x: f32) -> f32 { return x; }\nfn g() -> f32 { return x[0]; }'), ['x'], 'packed');
  assert.match(text, /fn f\(x: f32\) -> f32 \{ return x; \}/);
  assert.match(text, /fn g\(\) -> f32 \{ return load_half_x\(u32\(0\)\); \}/);
});

test('lines keep their numbers, for the messages of the compiler', () => {
  const before = main('let a = 1.0; /* two\nlines */ y[0] = a;\nlet here = 1;');
  const after = withHalves(before, ['y'], 'native');
  const line = (text: string) => text.split('\n').findIndex((l) => l.includes('let here'));
  assert.is(line(after), line(before));
});

test('a kernel that copies bits is left alone', () => {
  const copying = kernel('').replace('x: array<f32>', 'x: array<vec4u>');
  assert.is(withHalves(copying, ['x'], 'native'), copying);
});

test('what cannot be rewritten is refused with the kernel and the binding', () => {
  const refused =
    (body: string, names = ['y', 'z']) =>
    () =>
      withHalves(main(body), names, 'packed');
  assert.throws(refused('z[i].x = 1.0;'), /kernel "\/\/ a test" cannot hold f16 in "z", which is written in part/);
  assert.throws(refused('z[i][k] += 1.0;'), /"z", which is written in part/);
  assert.throws(refused('y[i]++;'), /"y", which is changed by \+\+/);
  assert.throws(refused('let n = arrayLength(&y);'), /"y", which is passed on/);
  assert.throws(refused('f(&y[0]);'), /"y", which is passed on/);
  assert.throws(refused('', ['w']), /"w", which is no storage binding/);
  const pairs = kernel('').replace('x: array<f32>', 'x: array<vec2f>');
  assert.throws(
    () => withHalves(pairs, ['x'], 'native'),
    /"x", which is array<vec2f>\n {2}only array<f32> and array<vec4f>/,
  );
});

/** Bindings of the engine that are no arrays of f32, vec4f or bits: moments, and the optimiser's structs. */
const NEVER = new Set(['moments', 'moments_in', 'control', 'state', 'adam_control', 'adam_state', 'sgd_control']);
for (const name of ['sgd_state', 'ema_control', 'clip_state', 'ids', 'index', 'labels']) NEVER.add(name);

test('every kernel of the engine compiles with f16 in all its bindings', async () => {
  const folder = 'src/kernels';
  let count = 0;
  for (const file of readdirSync(folder).filter((f) => f.endsWith('.wgsl'))) {
    const code = readFileSync(`${folder}/${file}`, 'utf8');
    if (/enable subgroups/.test(code) && !gpu.capabilities.subgroups) continue;
    for (const text of new Set([code, narrow(code)])) {
      for (const [name, entry] of inspect(text)) {
        const names = entry.bindings.filter((b) => b.access !== 'uniform' && !NEVER.has(b.name)).map((b) => b.name);
        for (const storage of storages) {
          const module = gpu.device.createShaderModule({ code: withHalves(text, names, storage) });
          const { messages } = await module.getCompilationInfo();
          const errors = messages.filter((m) => m.type === 'error').map((m) => `line ${m.lineNum}: ${m.message}`);
          assert.equal(errors, [], `${file} ${name} ${storage}`);
          count++;
        }
      }
    }
  }
  assert.ok(count >= 80, `${count} kernels`);
});

/** Every kind of number: all halves, what lies between and beside them, and much that is too large or too small. */
function everything(): number[] {
  const values = [0, -0, 1e-40, 3e-8, 2 ** -25, 2 ** -26, 65519.99, 65520, 65535, 65536, 1e10, 3e38, -1e30];
  for (let h = 0; h < 0x7c00; h++) {
    const [a, b] = [halfToFloat(h), h < 0x7bff ? halfToFloat(h + 1) : 65536];
    for (const share of [0, 0.49, 0.5, 0.51]) values.push(a + share * (b - a), -(a + share * (b - a)));
  }
  return [...new Float32Array(values)];
}

for (const storage of storages) {
  test(`${storage}: stored numbers are rounded to the nearest half, ties to even; loaded ones are exact`, async () => {
    const own = await testGpu({ force: { f16: storage } });
    const values = everything();
    const want = values.map((v) => halfToFloat(floatToHalf(v)));
    const code = main('y[id.x] = x[id.x];').replace(/^.*binding\(2\).*$/m, '');
    const wide = code.replaceAll('array<f32>', 'array<vec4f>');
    for (const [text, lanes] of [
      [code, 1],
      [wide, 4],
    ] as const) {
      const x = own.array([values.length], values);
      const y = own.empty(x.shape, 'f16');
      const back = own.empty(x.shape);
      const groups = [Math.min(65535, Math.ceil(values.length / lanes))];
      const run = (from: typeof x, to: typeof x) => {
        for (let first = 0; first < values.length / lanes; first += groups[0]) {
          own.run(text.replaceAll('id.x', `id.x + ${first}u`), 'main', {}, [from, to], groups);
        }
      };
      run(x, y);
      run(y, back);
      const [stored, loaded] = [await y.read(), await back.read()];
      const wrong = values.flatMap((v, i) =>
        Object.is(stored[i], want[i]) && Object.is(loaded[i], want[i])
          ? []
          : [`${v} → ${stored[i]} → ${loaded[i]}, not ${want[i]}`],
      );
      assert.equal(wrong.slice(0, 5), [], `${wrong.length} of ${values.length}, ${lanes} at a time`);
      for (const array of [x, y, back]) array.dispose();
    }
  });
}

test.run();
