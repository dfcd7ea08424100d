import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { decodedDistance, decoderDistance } from '../src/flow/decoded-distance.ts';
import { unscaleLatents } from '../src/flow/latents.ts';
import { lossTypes, makeLoss, wantsLpips } from '../src/flow/losses.ts';
import type { FlowPoints, LossOptions, LossType } from '../src/flow/losses.ts';
import { AutoencoderKL, LPIPS } from '../src/nn/index.ts';
import { noGrad, scope, tensor, useGpu } from '../src/tensor/index.ts';
import type { Tensor } from '../src/tensor/index.ts';
import { assertClose, testGpu } from './check-op.ts';
import { randoms } from './randoms.ts';

const test = suite('flow: losses');
let vae: AutoencoderKL, lpips: LPIPS;
test.before(async () => {
  useGpu(await testGpu());
  const means = { latents_mean: [0.1, -0.2, 0, 0.3], latents_std: [1, 2, 0.5, 1.5] };
  const config = { sample_size: 16, block_out_channels: [8, 16], layers_per_block: 1, norm_num_groups: 4, scaling_factor: 0.7 }; // prettier-ignore
  vae = new AutoencoderKL({ ...config, ...means } as object).initialize(3);
  lpips = new LPIPS('alex').initialize(5);
  for (const [key, p] of lpips.namedParameters())
    if (key.startsWith('lin')) p.array.write(new Float32Array(p.size).fill(1 / p.size)); // heads have no negative weights
});

const shape = [2, 8, 8, 4];
const d = 8 * 8 * 4;
const x0 = randoms(2 * d, 1, [-1, 1]),
  x1 = randoms(2 * d, 2, [-1, 1]),
  guess = randoms(2 * d, 3, [-1, 1]);
const times = [0.25, 0.8];
const at = (i: number) => times[Math.floor(i / d)];
const xt = x0.map((noise, i) => at(i) * x1[i] + (1 - at(i)) * noise);
const goal = x0.map((noise, i) => x1[i] - noise);
const points = (): FlowPoints => ({ xt: tensor(xt, shape), target: tensor(goal, shape), left: tensor(times.map((t) => 1 - t)) }); // prettier-ignore
const lossOf = (options: LossOptions) =>
  makeLoss(options, wantsLpips(options.type) ? decodedDistance(vae, lpips) : decoderDistance(vae));

const valueOf = (options: LossOptions, v: ArrayLike<number> = guess) =>
  scope(() => noGrad(() => lossOf(options)(tensor(v, shape), points()))).item();

/** LPIPS of x̂1 and x1 for each sample, with latents unscaled on the host. */
async function seen(): Promise<number[]> {
  const x1hat = Float32Array.from(xt, (x, i) => x + (1 - at(i)) * guess[i]);
  const image = (z: Float32Array) => vae.decode(tensor(unscaleLatents(z, 4, vae.config), shape));
  const result = scope(() => noGrad(() => [image(x1hat), image(Float32Array.from(x1))]));
  assert.equal(result[0].shape, [2, 16, 16, 3]);
  const both = await Promise.all(result.map((r) => r.read()));
  const [a, b] = both.map((pixels) => enlarge(pixels, 16, 4));
  return [...(await scope(() => noGrad(() => lpips.forward(tensor(a, [2, 64, 64, 3]), tensor(b, [2, 64, 64, 3])))).read())]; // prettier-ignore
}

/** Bilinear, by whole times, half-pixel centres, on the host. */
function enlarge(pixels: ArrayLike<number>, side: number, times: number): Float32Array {
  const out = new Float32Array(pixels.length * times * times);
  const large = side * times;
  const spot = (i: number) => {
    const x = Math.max(0, (i + 0.5) / times - 0.5);
    const low = Math.min(Math.floor(x), side - 1);
    return [low, Math.min(low + 1, side - 1), x - low];
  };
  for (let b = 0; b < 2; b++)
    for (let y = 0; y < large; y++)
      for (let x = 0; x < large; x++)
        for (let c = 0; c < 3; c++) {
          const [[y0, y1, fy], [x0, x1, fx]] = [spot(y), spot(x)];
          const p = (y: number, x: number) => pixels[((b * side + y) * side + x) * 3 + c];
          const row = (y: number) => p(y, x0) * (1 - fx) + p(y, x1) * fx;
          out[((b * large + y) * large + x) * 3 + c] = row(y0) * (1 - fy) + row(y1) * fy;
        }
  return out;
}

test('l2 and huber are the means that their names say', async () => {
  const errors = [...guess].map((v, i) => v - goal[i]);
  const mean = (f: (e: number) => number) => errors.reduce((sum, e) => sum + f(e), 0) / errors.length;
  assertClose([await valueOf({ type: 'l2' })], [mean((e) => e * e)], 1e-6, 'l2');
  const huber = (c: number) => mean((e) => Math.sqrt(e * e + c * c) - c);
  assertClose([await valueOf({ type: 'huber' })], [huber(0.001)], 1e-6, 'huber');
  assertClose([await valueOf({ type: 'huber', huberC: 0.4 })], [huber(0.4)], 1e-6, 'huber, c 0.4');
});

test('lpips is that of the decoded images; combinations are weighted sums of their parts', async () => {
  const apart = await seen();
  assert.ok(apart.every((x) => x > 1e-3), String(apart)); // prettier-ignore
  const mean = (a: number, b: number) => (a + b) / 2;
  const alone = await valueOf({ type: 'lpips' });
  assertClose([alone], [mean(apart[0], apart[1])], 1e-4, 'lpips');
  const l2 = await valueOf({ type: 'l2' });
  assertClose([await valueOf({ type: 'lpips_l2', lpipsWeight: 3 })], [3 * alone + l2], 1e-5, 'lpips_l2');
  const huber = (sample: number, c: number) => {
    let squares = 0;
    for (let i = sample * d; i < (sample + 1) * d; i++) squares += (guess[i] - goal[i]) ** 2;
    return (Math.sqrt(squares + c * c) - c) / d;
  };
  const expected = (c: number, w: number) => {
    const each = times.map((t, i) => t * huber(i, c) + (w * apart[i]) / (1 - t));
    return mean(each[0], each[1]);
  };
  assertClose([await valueOf({ type: 'lpips_huber' })], [expected(0.00054 * d, 1)], 1e-4, 'lpips_huber');
  const other = { type: 'lpips_huber', huberC: 2, lpipsWeight: 0.5 } as const;
  assertClose([await valueOf(other)], [expected(2, 0.5)], 1e-4, 'lpips_huber with its numbers');
});

test('lpl is how far the features of the decoder are from those of the target, against their length', async () => {
  const x1hat = Float32Array.from(xt, (x, i) => x + (1 - at(i)) * guess[i]);
  const features = (z: Float32Array) =>
    scope(() => noGrad(() => vae.decoderFeatures(tensor(unscaleLatents(z, 4, vae.config), shape))));
  const [ours, theirs] = [features(x1hat), features(Float32Array.from(x1))];
  assert.equal(ours.map((f) => f.shape), [[2, 8, 8, 16], [2, 16, 16, 16], [2, 16, 16, 8]]); // prettier-ignore
  let expected = 0;
  for (const [l, f] of ours.entries()) {
    const [a, b, C] = [await f.read(), await theirs[l].read(), f.shape[3]];
    for (let p = 0; p < a.length; p += C) {
      let [apart, length] = [0, 0];
      for (let i = p; i < p + C; i++) [apart, length] = [apart + (a[i] - b[i]) ** 2, length + b[i] ** 2];
      expected += apart / (length + 1e-6) / (a.length / C) / ours.length;
    }
  }
  const alone = await valueOf({ type: 'lpl' });
  assertClose([alone], [expected], 1e-4, 'lpl');
  const l2 = await valueOf({ type: 'l2' });
  assertClose([await valueOf({ type: 'lpl_l2', lpipsWeight: 3 })], [3 * alone + l2], 1e-5, 'lpl_l2');
});

test('a right velocity costs nothing', async () => {
  for (const type of lossTypes) {
    const loss = await valueOf({ type }, goal);
    assert.ok(Math.abs(loss) < 1e-6, `${type}: ${loss}`);
  }
});

for (const type of lossTypes) {
  test(`the gradient of ${type} is its slope, through the decoder where there is one; what is frozen gets none`, async () => {
    const loss = lossOf({ type, huberC: type === 'huber' ? 0.1 : undefined });
    const v = tensor(guess, shape, { requiresGrad: true });
    scope(() => loss(v, points()).backward());
    const g = (await v.grad!.read()) as Float32Array;
    const length = Math.hypot(...g);
    assert.ok(length > 0);
    const step = 0.05;
    const along = (by: number) => valueOf({ type, huberC: type === 'huber' ? 0.1 : undefined }, Float32Array.from(guess, (x, i) => x + (by * g[i]) / length)); // prettier-ignore
    const slope = ((await along(step)) - (await along(-step))) / (2 * step);
    assertClose([slope], [length], 0.02, 'slope');
    const frozen = [...vae.namedParameters(), ...lpips.namedParameters()];
    assert.ok(frozen.every(([, p]) => !p.grad));
    v.grad!.dispose();
    v.dispose();
  });
}

test('a decoder that is computed again in backward gives the same gradient, to the bit', async () => {
  const gradient = async (type: LossType) => {
    const v = tensor(guess, shape, { requiresGrad: true });
    scope(() => lossOf({ type })(v, points()).backward());
    const g = [...(await v.grad!.read())];
    v.dispose();
    return g;
  };
  for (const type of ['lpips', 'lpl'] as const) {
    const plain = await gradient(type);
    vae.gradientCheckpointing = true;
    assert.equal(await gradient(type), plain, type);
    vae.gradientCheckpointing = false;
  }
});

test('numbers that make no sense are refused', () => {
  const refuse = (options: object, words: RegExp) => assert.throws(() => makeLoss(options as LossOptions), words);
  refuse({ type: 'l3' }, /makeLoss: there is no loss l3\n {2}known: l2 huber lpips/);
  refuse({ type: 'huber', huberC: 0 }, /makeLoss: huberC is 0, must be above 0/);
  refuse({ type: 'lpips_l2', lpipsWeight: NaN }, /makeLoss: lpipsWeight is NaN/);
  refuse({ type: 'lpips' }, /makeLoss: lpips compares images\n {2}give it a distance/);
});

test.run();
