/** TensorFlow.js, eagerly, on its WebGPU or its WebAssembly back end. Channels last like ours; kernels are [kh, kw, I, O]. */
import { CNN_STRIDES, labelsOf, LEARNING_RATE } from '../work.ts';
import type { Operand, WorkOf } from '../work.ts';
import { folderOf, load, permuted, pretendBrowser, STEPS, versionOf } from './peer.ts';
import type { Call, Ops, Peer } from './peer.ts';

export async function open(backend: 'webgpu' | 'wasm'): Promise<Peer> {
  const name = `@tensorflow/tfjs-backend-${backend}`;
  if (backend === 'webgpu') await pretendBrowser();
  const { default: tf } = await load('@tensorflow/tfjs');
  const back = await load(name);
  if (backend === 'wasm') (back.setWasmPaths ?? back.default.setWasmPaths)(`${folderOf(name)}dist/`);
  if (!(await tf.setBackend(backend))) throw new Error(`setBackend('${backend}') answered false`);
  await tf.ready();
  const { queue } = tf.backend();
  return {
    version: versionOf(name),
    ops: opsOf(tf),
    async done() {
      if (!queue) return;
      // submitQueue() alone breaks the open pass, and every later result is silently zero.
      tf.backend().endComputePassEncoder();
      if (tf.backend().commandEncoder) tf.backend().submitQueue(); // unless the last dispatch filled a batch
      await queue.onSubmittedWorkDone();
    },
  };
}

function opsOf(tf: any): Ops {
  const tensorOf = ({ shape, data }: Operand) => tf.tensor(data, shape);
  function call(operands: Operand[], fn: (tensors: any[]) => any, tensors = operands.map(tensorOf)): Call {
    return {
      run: () => tf.tidy(() => void fn(tensors)),
      async result() {
        const y = tf.tidy(() => fn(tensors));
        const data = await y.data();
        y.dispose();
        return data;
      },
      dispose: () => tf.dispose(tensors),
    };
  }
  return {
    matmul: (_, operands) => call(operands, ([a, b]) => tf.matMul(a, b)),
    conv(_, [x, w, b]) {
      return call([x, kernelOf(w), b], ([x, filter, bias]) =>
        tf.fused.conv2d({ x, filter, bias, strides: 1, pad: 'same', activation: 'linear' }),
      );
    },
    attention({ B, heads, D }, operands) {
      const split = ({ shape, data }: Operand): Operand => ({
        shape: [B * heads, shape[1], D],
        data: permuted(data, [B, shape[1], heads, D], [0, 2, 1, 3]),
      });
      const inner = call(operands.map(split), ([q, k, v]) =>
        tf.matMul(tf.softmax(tf.mul(tf.matMul(q, k, false, true), 1 / Math.sqrt(D))), v),
      );
      const shape = [B, heads, operands[0].shape[1], D];
      return { ...inner, result: async () => permuted(await inner.result(), shape, [0, 2, 1, 3]) };
    },
    groupNormSilu({ B, H, W, C, groups }, operands) {
      return call(operands, ([x, w, b]) => {
        const parts = tf.reshape(x, [B, H * W, groups, C / groups]);
        const { mean, variance } = tf.moments(parts, [1, 3], true);
        const normal = tf.mul(tf.sub(parts, mean), tf.rsqrt(tf.add(variance, 1e-5)));
        const y = tf.add(tf.mul(tf.reshape(normal, [B, H, W, C]), w), b);
        return tf.mul(y, tf.sigmoid(y));
      });
    },
    layerNorm(_, operands) {
      return call(operands, ([x, w, b]) => {
        const { mean, variance } = tf.moments(x, -1, true);
        return tf.add(tf.mul(tf.mul(tf.sub(x, mean), tf.rsqrt(tf.add(variance, 1e-5))), w), b);
      });
    },
    softmax: (_, operands) => call(operands, ([x]) => tf.softmax(x)),
    add: (_, operands) => call(operands, ([a, b]) => tf.add(a, b)),
    train: (work, operands) => train(tf, work, operands),
  };
}

/** [O, kh, kw, I] → [kh, kw, I, O] */
const kernelOf = ({ shape, data }: Operand): Operand => ({
  shape: [shape[1], shape[2], shape[3], shape[0]],
  data: permuted(data, shape, [1, 2, 3, 0]),
});

function train(tf: any, work: WorkOf<'train'>, operands: Operand[]): Call {
  const [images, ...rest] = operands;
  const x = tf.tensor(images.data, images.shape);
  const labels = tf.oneHot(tf.tensor1d(labelsOf(work.batch), 'int32'), 10).toFloat();
  const weights = rest.map(({ shape, data }) => {
    const { shape: s, data: d } = shape.length === 4 ? kernelOf({ shape, data }) : { shape, data };
    return tf.variable(tf.tensor(d, s));
  });
  const linear = (x: any, i: number) => tf.add(tf.matMul(x, weights[2 * i], false, true), weights[2 * i + 1]);
  const loss = () => {
    let y = x;
    if (work.network === 'mlp') y = linear(tf.relu(linear(tf.relu(linear(y, 0)), 1)), 2);
    else {
      CNN_STRIDES.forEach((stride, i) => {
        // TensorFlow's 'same' pads a stride of 2 on the other side, so the padding is given.
        const pad = [[0, 0], [1, 1], [1, 1], [0, 0]]; // prettier-ignore
        y = tf.relu(tf.add(tf.conv2d(y, weights[2 * i], stride, pad), weights[2 * i + 1]));
      });
      y = linear(tf.mean(y, [1, 2]), 3);
    }
    return tf.losses.softmaxCrossEntropy(labels, y);
  };
  const adam = tf.train.adam(LEARNING_RATE, 0.9, 0.999, 1e-8);
  return {
    run: () => tf.tidy(() => void adam.minimize(loss)),
    async result() {
      const losses: number[] = [];
      for (let i = 0; i < STEPS; i++) {
        const value = adam.minimize(loss, true);
        losses.push((await value.data())[0]);
        value.dispose();
      }
      return losses;
    },
    dispose() {
      adam.dispose();
      tf.dispose([x, labels, ...weights]);
    },
  };
}
