/** JAX-JS on its WebGPU back end: everything under jit, channels first. */
import { CNN_STRIDES, labelsOf, LEARNING_RATE } from '../work.ts';
import type { Operand, WorkOf } from '../work.ts';
import { CHANNELS_FIRST, CHANNELS_LAST, load, permuted, pretendBrowser, STEPS, versionOf } from './peer.ts';
import type { Call, Ops, Peer } from './peer.ts';

export async function open(): Promise<Peer> {
  await pretendBrowser();
  const jax = await load('@jax-js/jax');
  const found = await jax.init('webgpu');
  if (!found.includes('webgpu')) throw new Error(`init('webgpu') found only ${found.join(', ')}`);
  jax.defaultDevice('webgpu');
  const { queue } = jax.getWebGPUDevice();
  return { version: versionOf('@jax-js/jax'), ops: opsOf(jax), done: () => queue.onSubmittedWorkDone() };
}

function opsOf(jax: any): Ops {
  const { numpy: np, lax, nn } = jax;
  const arrayOf = ({ shape, data }: Operand) => np.array(data).reshape(shape);
  function call(operands: Operand[], fn: (...arrays: any[]) => any): Call {
    const arrays = operands.map(arrayOf);
    const compiled = jax.jit(fn);
    let isPrepared = false;
    return {
      async run() {
        const y = compiled(...arrays.map((a) => a.ref));
        if (isPrepared) return void y.gpuBufferSync(); // hands it to the GPU and drops it
        await jax.blockUntilReady(y);
        y.dispose();
        isPrepared = true;
      },
      result: () => compiled(...arrays.map((a) => a.ref)).data(),
      dispose() {
        for (const a of arrays) a.dispose();
        compiled.dispose();
      },
    };
  }
  /** The last shape of `call`'s result is channels first. */
  const channelsLast = (inner: Call, shape: number[]): Call => ({
    ...inner,
    result: async () => permuted(await inner.result(), shape, CHANNELS_LAST),
  });
  return {
    matmul: (_, operands) => call(operands, (a, b) => np.matmul(a, b)),
    conv({ B, H, W, O }, [x, w, b]) {
      const inner = call([first(x), first(w), { ...b, shape: [1, O, 1, 1] }], (x, w, b) =>
        lax.conv(x, w, [1, 1], 'SAME').add(b),
      );
      return channelsLast(inner, [B, O, H, W]);
    },
    // Its dotProductAttention wants iterator helpers, which Node 20 has not; this is what it does.
    attention({ B, heads, D }, operands) {
      const split = ({ shape, data }: Operand): Operand => ({
        shape: [B, heads, shape[1], D],
        data: permuted(data, [B, shape[1], heads, D], [0, 2, 1, 3]),
      });
      const inner = call(operands.map(split), (q, k, v) => {
        const scores = np.matmul(q, k.transpose([0, 1, 3, 2])).mul(1 / Math.sqrt(D));
        return np.matmul(nn.softmax(scores, -1), v);
      });
      const shape = [B, heads, operands[0].shape[1], D];
      return { ...inner, result: async () => permuted(await inner.result(), shape, [0, 2, 1, 3]) };
    },
    groupNormSilu({ B, H, W, C, groups }, [x, w, b]) {
      const inner = call(
        [first(x), { ...w, shape: [1, C, 1, 1] }, { ...b, shape: [1, C, 1, 1] }],
        (x, w, b) =>
          nn.silu(
            nn.standardize(x.reshape([B, groups, (C / groups) * H * W]), -1, { epsilon: 1e-5 })
              .reshape([B, C, H, W])
              .mul(w)
              .add(b),
          ), // prettier-ignore
      );
      return channelsLast(inner, [B, C, H, W]);
    },
    layerNorm: (_, operands) => call(operands, (x, w, b) => nn.standardize(x, -1, { epsilon: 1e-5 }).mul(w).add(b)),
    softmax: (_, operands) => call(operands, (x) => nn.softmax(x, -1)),
    add: (_, operands) => call(operands, (a, b) => a.add(b)),
    train: (work, operands) => train(jax, work, operands),
  };
}

const first = ({ shape, data }: Operand): Operand => ({
  shape: CHANNELS_FIRST.map((axis) => shape[axis]),
  data: permuted(data, shape, CHANNELS_FIRST),
});

function train(jax: any, work: WorkOf<'train'>, operands: Operand[]): Call {
  const { numpy: np, lax, nn } = jax;
  const [x, ...weights] = operands
    .map((o) => (o.shape.length === 4 ? first(o) : o))
    .map(({ shape, data }) => np.array(data).reshape(shape));
  const labels = nn.oneHot(np.array(labelsOf(work.batch), { dtype: np.int32 }), 10);
  const linear = (x: any, w: any, b: any) => np.matmul(x, w.transpose()).add(b);
  const scores = (p: any[], x: any) => {
    if (work.network === 'mlp') return linear(nn.relu(linear(nn.relu(linear(x, p[0], p[1])), p[2], p[3])), p[4], p[5]);
    CNN_STRIDES.forEach((stride, i) => {
      const pad = [[1, 1], [1, 1]]; // prettier-ignore
      x = nn.relu(lax.conv(x, p[2 * i], [stride, stride], pad).add(p[2 * i + 1].reshape([1, -1, 1, 1])));
    });
    return linear(x.mean([2, 3]), p[6], p[7]);
  };
  const loss = (p: any[], x: any, labels: any) => nn.logSoftmax(scores(p, x), -1).mul(labels).sum(-1).mean().neg();
  // A hand-written Adam inside one jit, as its own package of optimisers would run it.
  const step = jax.jit((p: any[], m: any[], v: any[], t: any, x: any, labels: any) => {
    const [value, g] = jax.valueAndGrad(loss)(p.map((a) => a.ref), x, labels); // prettier-ignore
    const now = t.add(1);
    const [fix1, fix2] = [0.9, 0.999].map((beta) => np.exp(now.ref.mul(Math.log(beta))).neg().add(1)); // prettier-ignore
    const m2 = m.map((a, i) => a.mul(0.9).add(g[i].ref.mul(0.1)));
    const v2 = v.map((a, i) => a.mul(0.999).add(g[i].ref.mul(g[i]).mul(0.001)));
    const p2 = p.map((a, i) => {
      const root = np.sqrt(v2[i].ref.div(fix2.ref)).add(1e-8);
      return a.sub(m2[i].ref.div(fix1.ref).div(root).mul(LEARNING_RATE));
    });
    fix1.dispose();
    fix2.dispose();
    return [p2, m2, v2, now, value];
  });
  const zeros = () => weights.map((w) => np.zeros(w.shape));
  let state: any[] = [weights, zeros(), zeros(), np.zeros([])];
  const advance = () => {
    const [p, m, v, t, value] = step(...state, x.ref, labels.ref);
    state = [p, m, v, t];
    return value;
  };
  let isPrepared = false;
  return {
    async run() {
      const value = advance();
      if (isPrepared) return void value.gpuBufferSync();
      await jax.blockUntilReady(value);
      value.dispose();
      isPrepared = true;
    },
    async result() {
      const losses: number[] = [];
      for (let i = 0; i < STEPS; i++) losses.push((await advance().data())[0]);
      return losses;
    },
    dispose() {
      for (const a of [...state.flat(), x, labels]) a.dispose();
      step.dispose();
    },
  };
}
