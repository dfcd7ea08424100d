import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { unroll } from '../src/kernels/unroll.ts';

const test = suite('unroll');
const squeeze = (code: string) => code.replace(/\s+/g, ' ').trim();

test('writes out loops with a known bound, inner ones too, and leaves the others', () => {
  const code =
    'for (var i = 0u; i < N; i++) { a[i] = 1; for (var j = 0u; j < M; j++) { if (ij[j] > i) { b; } } } for (var k = 0u; k < K; k++) { c[k]; }';
  const inner = (i: number) => `{ a[${i}u] = 1; ${[0, 1].map((j) => `{ if (ij[${j}u] > ${i}u) { b; } }`).join(' ')} }`;
  assert.is(squeeze(unroll(code, { N: 2, M: 2 })), `${inner(0)} ${inner(1)} for (var k = 0u; k < K; k++) { c[k]; }`);
});
test.run();
