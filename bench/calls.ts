/** Each kind of work as calls of this library: ops, and the training of a perceptron and of a small convolutional network. */
import { Adam } from '../src/nn/index.ts';
import * as T from '../src/tensor/index.ts';
import type { Tensor } from '../src/tensor/index.ts';
import { CNN_STRIDES, labelsOf, LEARNING_RATE, operandsOf } from './work.ts';
import type { Work, WorkOf } from './work.ts';

/** The op of a piece of work, from its operands to its result. */
export function opOf(work: Exclude<Work, WorkOf<'train'>>): (operands: readonly Tensor[]) => Tensor {
  switch (work.kind) {
    case 'matmul':
      return ([a, b]) => T.matmul(a, b);
    case 'linear':
      return ([x, w]) => T.linear(x, w);
    case 'conv':
      return ([x, w, b]) => T.conv2d(x, w, b, { padding: 1 });
    case 'attention':
      return ([q, k, v]) => T.attention(q, k, v, { heads: work.heads });
    case 'groupNormSilu':
      return ([x, w, b]) => T.groupNorm(x, w, b, { groups: work.groups, silu: true });
    case 'layerNorm':
      return ([x, w, b]) => T.layerNorm(x, w, b);
    case 'softmax':
      return ([x]) => T.softmax(x);
    case 'add':
      return ([a, b]) => T.add(a, b);
  }
}

export interface Training {
  /** One step: forward, backward, Adam. Its loss is freed by the caller's scope. */
  step(): Tensor;
  dispose(): void;
}

export function training(work: WorkOf<'train'>): Training {
  const [images, ...weights] = operandsOf(work).map(({ shape, data }) => T.keep(T.tensor(data, shape)));
  const labels = T.keep(T.tensor(labelsOf(work.batch), [work.batch], { dtype: 'i32' }));
  for (const w of weights) w.requiresGrad = true;
  const optimizer = new Adam(new Map(weights.map((w, i) => [`${i}`, w])), { lr: LEARNING_RATE });
  const scores = work.network === 'mlp' ? perceptron : convolutional;
  return {
    step() {
      const loss = T.crossEntropy(scores(images, weights), labels);
      loss.backward();
      optimizer.step();
      return loss;
    },
    dispose() {
      for (const tensor of [images, labels, ...weights]) tensor.dispose();
      optimizer.dispose();
    },
  };
}

/** x: [B, 784] → [B, 10] */
function perceptron(x: Tensor, [w1, b1, w2, b2, w3, b3]: Tensor[]): Tensor {
  return T.linear(T.relu(T.linear(T.relu(T.linear(x, w1, b1)), w2, b2)), w3, b3);
}

/** x: [B, 32, 32, 3] → [B, 10] */
function convolutional(x: Tensor, weights: Tensor[]): Tensor {
  CNN_STRIDES.forEach((stride, i) => {
    x = T.relu(T.conv2d(x, weights[2 * i], weights[2 * i + 1], { stride, padding: 1 }));
  });
  return T.linear(T.mean(x, { axes: [1, 2] }), weights[6], weights[7]);
}
