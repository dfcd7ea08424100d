import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { currentGpu, noGrad, scope, sum, tensor, useGpu, type Tensor } from '../src/tensor/index.ts';
import { normal } from '../src/tensor/random.ts';
import { LPIPS, outlineOf, type LPIPSNet } from '../src/nn/index.ts';
import { assertClose, testGpu } from './check-op.ts';

const test = suite('nn-lpips');
test.before(async () => void useGpu(await testGpu()));

const nets: LPIPSNet[] = ['vgg', 'alex', 'squeeze'];
const smallest = { vgg: 16, alex: 31, squeeze: 17 };
const image = (name: string, height: number, width: number) => {
  const size = [2, height, width, 3];
  const data = normal(3, name, 6 * height * width).map((v) => Math.tanh(v / 2));
  return tensor(data, size);
};
const rows = (model: LPIPS) => [...model.namedParameters()].map(([key, p]) => `${key} [${p.checkpointShape}]`);

test('keys and shapes are those of the lpips package', () => {
  const vgg = rows(outlineOf(() => new LPIPS()));
  assert.is(vgg.length, 2 * 13 + 5);
  assert.equal(vgg.slice(0, 2), ['net.slice1.0.weight [64,3,3,3]', 'net.slice1.0.bias [64]']);
  assert.ok(vgg.includes('net.slice3.14.weight [256,256,3,3]'));
  assert.ok(vgg.includes('net.slice5.28.weight [512,512,3,3]'));
  assert.ok(vgg.includes('lin0.model.1.weight [1,64,1,1]'));
  assert.not.ok(vgg.some((row) => row.startsWith('lin0.model.1.bias')));
  const alex = rows(outlineOf(() => new LPIPS('alex')));
  assert.is(alex.length, 2 * 5 + 5);
  for (const row of [
    'net.slice1.0.weight [64,3,11,11]',
    'net.slice2.3.weight [192,64,5,5]',
    'net.slice5.10.bias [256]',
  ])
    assert.ok(alex.includes(row), row);
  const squeeze = rows(outlineOf(() => new LPIPS('squeeze')));
  assert.is(squeeze.length, 2 * (1 + 3 * 8) + 7);
  for (const row of ['net.slice2.3.squeeze.weight [16,64,1,1]', 'net.slice7.12.expand3x3.weight [256,64,3,3]'])
    assert.ok(squeeze.includes(row), row);
  assert.ok(squeeze.includes('lin6.model.1.weight [1,512,1,1]'));
});

test('pools of SqueezeNet round up, so that its images are as large as torchvision has them', () => {
  using model = new LPIPS('squeeze');
  const sides = (side: number) => scope(() => model.features(image('x', side, side)).map((f) => f.shape[1]));
  assert.equal(sides(64), [31, 15, 7, 3, 3, 3, 3]);
  assert.equal(sides(62), [30, 15, 7, 3, 3, 3, 3]);
  assert.equal(sides(17), [8, 4, 2, 1, 1, 1, 1]);
});

test('an unknown network, another size, other channels and too small images are refused', () => {
  assert.throws(() => new LPIPS('resnet' as 'vgg'), /LPIPS: there is no network resnet\n {2}known: vgg alex squeeze/);
  for (const net of nets) {
    using model = outlineOf(() => new LPIPS(net));
    const side = smallest[net] - 1;
    assert.throws(() => model.features(image('x', side, 40)), new RegExp(`sides of at least ${side + 1} for ${net}`));
    assert.throws(() => model.forward(image('x', 32, 40), image('y', 40, 32)), /LPIPS: the images differ in size/);
    assert.throws(() => model.features(tensor(Array(64 * 64).fill(0), [1, 64, 64, 1])), /wants images \[B, H, W, 3\]/);
  }
});

for (const net of nets) {
  test(`${net}: a distance, whose gradient is its slope`, async () => {
    using model = new LPIPS(net).initialize(5);
    for (const [key, p] of model.namedParameters()) {
      if (key.startsWith('lin')) p.array.write(new Float32Array(p.size).fill(1 / p.size)); // heads have no negative weights
    }
    const side = smallest[net];
    const [x, y] = [image('x', side, side + 2), image('y', side, side + 2)];
    const distance = (a: Tensor, b: Tensor) => scope(() => noGrad(() => model.forward(a, b)));
    const there = await distance(x, y).read();
    assert.is(there.length, 2);
    assert.ok(there[0] > 1e-3 && there[1] > 1e-3 && there[0] !== there[1], String(there));
    assertClose(await distance(y, x).read(), there, 1e-6, 'from y to x');
    assert.equal([...(await distance(x, x).read())], [0, 0]);

    x.requiresGrad = true;
    scope(() => sum(model.forward(x, y)).backward());
    const [g, start] = [await x.grad!.read(), await x.read()];
    const length = Math.hypot(...g);
    const at = async (s: number) => {
      x.array.write(start.map((v, i) => v + (s * g[i]) / length));
      return scope(() => noGrad(() => sum(model.forward(x, y)))).item();
    };
    const slope = ((await at(0.01)) - (await at(-0.01))) / 0.02;
    assert.ok(Math.abs(slope - length) < 0.02 * length, `slope ${slope}, gradient ${length}`);
  });
}

test("torchvision's weights load together with the published heads", async () => {
  using model = new LPIPS('squeeze').initialize(1);
  const state = await model.stateDict();
  const published = Object.fromEntries(
    Object.entries(state).map(([key, value]) => [key.replace(/^net\.slice\d/, 'features'), value]),
  );
  assert.ok(published['features.12.expand1x1.bias'] && published['lin6.model.1.weight']);
  published['classifier.1.weight'] = { shape: [1], data: Float32Array.of(0) };
  using other = new LPIPS('squeeze');
  other.loadStateDict(published);
  for (const [key, p] of other.namedParameters())
    assert.equal(await p.read(), await model.namedParameters().get(key)!.read(), key);
  delete published['features.3.squeeze.bias'];
  assert.throws(() => other.loadStateDict(published), /LPIPS: .*\n {2}missing: net\.slice2\.3\.squeeze\.bias/);
});

test.after(() => currentGpu().idle());
test.run();
