import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { compare, gradientCheck, probe, statsChecks } from '../src/cli/verify/compare.ts';
import { channelsLast, channelsSecond, permuteHost } from '../src/cli/verify/layout.ts';
import { count, groupLine, summaryLines, toJson, type Result } from '../src/cli/verify/report.ts';
import { affine, parameter, parameterScale, ruleHash, ruleUniform } from '../src/cli/verify/rule.ts';

const test = suite('golden');

test('the number rule gives its published values', () => {
  const seed = 'shared-v1/vectors';
  assert.is(ruleHash(seed, 'conv_in.weight'), 0x316f8aa1);
  assert.equal(parameterScale('conv_in.weight', [320, 4, 3, 3]), [0.28867513459481287, 0]);
  const weight = parameter('conv_in.weight', [320, 4, 3, 3], { seed });
  assert.equal([...weight.subarray(0, 3)], [-0.12845036387443542, 0.23803403973579407, -0.2025143951177597]);
  const norm = parameter('down_blocks.0.resnets.0.norm1.weight', [320], { seed });
  assert.equal([...norm.subarray(0, 2)], [0.9441885352134705, 1.088304042816162]);
  const head = parameter('lin0.model.1.weight', [1, 64, 1, 1], { seed, gain: Math.SQRT2 });
  assert.is(head[0], 0.015736673027276993);
  const scaled = parameter('conv_in.weight', [320, 4, 3, 3], {
    seed,
    scale_rules: [
      ['^conv_in', 0.5],
      ['conv', 9],
    ],
  });
  assert.is(scaled[1], weight[1] / 2);
  assert.throws(() => parameter('gamma', [4], { seed }), /no row for gamma/);
  assert.ok(affine(1000, 'a', 'b').every((u) => u >= -1 && u < 1));
});

test('errors are relative to the largest expected value', () => {
  const check = compare({ name: 'y', got: [1, 2, 103], want: [1, 2, 100], tolerance: 0.02 });
  assert.equal([check.error, check.at, check.passed], [0.03, 2, false]);
  assert.ok(compare({ name: 'y', got: [0, 0], want: [0, 0], tolerance: 0 }).passed);
  assert.is(compare({ name: 'y', got: [1e-9], want: [0], tolerance: 1e-8 }).error, 1e-9);
});

test('NaN, a wrong infinity and a wrong size are infinitely wrong', () => {
  for (const got of [[NaN, 1], [Infinity, 1], [1]]) {
    assert.is(compare({ name: 'y', got, want: [0, 1], tolerance: 1 }).error, Infinity);
  }
  assert.ok(compare({ name: 'y', got: [-Infinity, 1], want: [-Infinity, 1], tolerance: 0 }).passed);
});

test('a gradient that should be zero may be rounding noise', () => {
  assert.ok(compare(gradientCheck('g', [1e-9], [3e-9], 1e-4, 1)).passed);
  assert.not.ok(compare(gradientCheck('g', [1e-6], [3e-6], 1e-4, 1)).passed);
});

test('the probe notices two elements that changed places, the rms does not', () => {
  const x = Float32Array.from({ length: 50 }, (_, i) => Math.sin(i)),
    swapped = x.slice();
  [swapped[3], swapped[40]] = [x[40], x[3]];
  const stats = { rms: Math.sqrt(x.reduce((s, v) => s + v * v, 0) / 50), probe: probe('x', x) };
  assert.equal(
    statsChecks('x', x, stats, 1e-6).map((check) => compare(check).passed),
    [true, true],
  );
  assert.equal(
    statsChecks('x', swapped, stats, 1e-4).map((check) => compare(check).passed),
    [true, false],
  );
  assert.is(ruleUniform(ruleHash('probe', 'x'), 0) < 1, true);
});

test('images and filters go to channels last and back', () => {
  const x = { shape: [2, 3, 4, 5], data: Float32Array.from({ length: 120 }, (_, i) => i) };
  const last = channelsLast(x);
  assert.equal(last.shape, [2, 4, 5, 3]);
  assert.is(last.data[1], 20); // channel 1 of the first pixel
  assert.equal(channelsSecond(last), { shape: x.shape, data: x.data });
  assert.equal(
    channelsLast({ shape: [2, 2, 3], data: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11] }).data.slice(0, 4),
    Float32Array.of(0, 3, 1, 4),
  );
  assert.equal(
    permuteHost({ shape: [2, 3], data: [0, 1, 2, 3, 4, 5] }, [1, 0]).data,
    Float32Array.of(0, 3, 1, 4, 2, 5),
  );
  assert.equal(channelsLast({ shape: [], data: [7] }).data, Float32Array.of(7));
});

test('the summary counts, names the worst case, and groups the reasons for skipping', () => {
  const worst = { name: 'y', error: 2e-3, tolerance: 1e-4, passed: false, at: 3, got: 1, want: 2 };
  const base = { group: 'op', failures: [], milliseconds: 1, peakBytes: 0 };
  const results: Result[] = [
    { ...base, id: 'op/a', status: 'passed', worst: { ...worst, error: 1e-6, passed: true } },
    { ...base, id: 'op/b', status: 'failed', worst, failures: [worst] },
    { ...base, id: 'op/c', status: 'skipped', reason: 'not yet: z' },
    { ...base, id: 'op/d', status: 'skipped', reason: 'not yet: z' },
    { ...base, id: 'op/e', status: 'failed', worst: { ...worst, error: Infinity }, failures: [], reason: 'boom' },
  ];
  assert.equal(count(results), { passed: 1, failed: 2, skipped: 2 });
  assert.match(
    groupLine('op', results.slice(0, 4)),
    /1 passed\s+1 failed\s+2 skipped\s+worst 2\.0e-3 \(op\/b y, limit 1\.0e-4\)/,
  );
  assert.equal(summaryLines(results, false), [
    'failed: op/b y: relative error 2.0e-3 > 1.0e-4, element 3 is 1, want 2',
    'failed: op/e: boom',
    'skipped: 2 × not yet: z',
    '1 passed, 2 failed, 2 skipped',
  ]);
  assert.ok(summaryLines(results, true).includes('skipped: op/d: not yet: z'));
  const json = JSON.parse(toJson({ set: 's' }, results));
  assert.equal([json.passed, json.groups[0].worst.error, json.cases.length], [1, 'Infinity', 5]);
});

test.run();
