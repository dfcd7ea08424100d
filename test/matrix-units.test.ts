import { suite } from 'uvu';
import { linear } from '../src/kernels/linear.ts';
import { conv2d } from '../src/kernels/conv2d.ts';
import { checkOp } from './check-op.ts';

const test = suite('matrix-units');
const emulated = { variants: ['subgroup-matrix-emulated'], dtypes: { 0: 'f16', 1: 'f16' }, makes: 'f16', tolerance: 2e-3, gradTolerance: 2e-3, samples: 20 } as const;

test('linear', async () => { const t=performance.now(); await checkOp(linear, [[3, 25, 48], [68, 48], [68], [3, 25, 68]], {}, emulated); console.log(performance.now() - t); });
test('linear odd', async () => { const t=performance.now(); await checkOp(linear, [[35, 13], [71, 13], [71]], {}, emulated); console.log(performance.now() - t); });
test('conv', async () => {
  const t=performance.now(); await checkOp(conv2d, [[2, 5, 7, 3], [11, 3, 3, 3], [11]], { padding: 1 }, emulated); console.log(performance.now() - t);
});
test.run();
