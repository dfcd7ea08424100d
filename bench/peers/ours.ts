/** This library, through its public functions, eagerly. */
import { readFileSync } from 'node:fs';
import * as T from '../../src/index.ts';
import { opOf, training } from '../calls.ts';
import type { Operand, WorkOf } from '../work.ts';
import { STEPS } from './peer.ts';
import type { Call, Ops, Peer } from './peer.ts';

export async function open(): Promise<Peer> {
  const gpu = await T.init();
  const { version } = JSON.parse(readFileSync('package.json', 'utf8'));
  const kinds = ['matmul', 'conv', 'attention', 'groupNormSilu', 'layerNorm', 'softmax', 'add'];
  const ops = Object.fromEntries(kinds.map((kind) => [kind, call])) as Ops;
  return { version, done: () => gpu.idle(), ops: { ...ops, train } };
}

function call(work: Parameters<typeof opOf>[0], operands: Operand[]): Call {
  const op = opOf(work);
  const tensors = operands.map(({ shape, data }) => T.keep(T.tensor(data, shape)));
  return {
    run: () => T.noGrad(() => T.scope(() => void op(tensors))),
    result: () => T.noGrad(() => T.scope(() => op(tensors).read())),
    dispose: () => tensors.forEach((tensor) => tensor.dispose()),
  };
}

function train(work: WorkOf<'train'>): Call {
  const { step, dispose } = training(work);
  return {
    run: () => T.scope(() => void step()),
    async result() {
      const losses: number[] = [];
      for (let i = 0; i < STEPS; i++) losses.push(await T.scope(() => step().item()));
      return losses;
    },
    dispose,
  };
}
