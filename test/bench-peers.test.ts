import { existsSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { compare } from '../bench/peers/compare.ts';
import { table } from '../bench/peers/table.ts';
import type { Work } from '../bench/work.ts';
import { skip } from './skip.ts';

const test = suite('bench-peers');

if (existsSync('bench/peers/node_modules/onnxruntime-node')) {
  test('other libraries get the same results, or say why not', async () => {
    const works: Record<string, Work> = {
      matmul: { kind: 'matmul', M: 17, K: 33, N: 20 },
      conv: { kind: 'conv', B: 2, H: 6, W: 6, C: 8, O: 12 },
      attention: { kind: 'attention', B: 2, heads: 2, Tq: 12, Tk: 12, D: 8 },
      groupNormSilu: { kind: 'groupNormSilu', B: 2, H: 4, W: 4, C: 8, groups: 2 },
      train: { kind: 'train', network: 'mlp', batch: 4 },
    };
    const comparison = await compare({ works, peers: ['ours', 'ort-node-cpu', 'tfjs-wasm'], rounds: 1, batch: 5 });
    for (const { name, peers } of comparison.rows) {
      for (const [peer, { milliseconds, difference, error }] of Object.entries(peers)) {
        if (peer === 'ort-node-cpu' && name === 'train') assert.is(error, 'runs networks, does not train them');
        else assert.ok(milliseconds! > 0 && difference! < 1e-3, `${name}, ${peer}: ${error}`);
      }
    }
    assert.match(table(comparison), /Left out:\n {2}ort-node-cpu: runs networks, does not train them \(train\)/);
  });
} else skip(test, 'other libraries get the same results', 'bench/peers/node_modules is made by npm run bench:peers');

test.run();
