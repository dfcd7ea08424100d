import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { BatchSampler, gatherImages, mirror, type Batch } from '../src/flow/data/loader.ts';

const captions = Array.from({ length: 10 }, (_, i) => [`picture ${i}`, `tag ${i}a`, `tag ${i}b`]);
const options = { batchSize: 4, seed: 7, randomFlip: true };
const take = (sampler: BatchSampler, count: number): Batch[] => Array.from({ length: count }, () => sampler.next());

const test = suite('data: loader');

test('every epoch has each image once, in an order of its own', () => {
  const indices = take(new BatchSampler(captions, options), 5).flatMap((batch) => [...batch.indices]);
  const first = indices.slice(0, 10),
    second = indices.slice(10);
  assert.equal([...first].sort(), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  assert.equal([...second].sort(), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  assert.not.equal(first, second);
});

test('a resumed run repeats exactly what an uninterrupted one draws', () => {
  const whole = take(new BatchSampler(captions, options), 12);
  const start = new BatchSampler(captions, options);
  take(start, 5);
  const saved = JSON.parse(JSON.stringify(start.cursor));
  assert.equal(saved, { epoch: 2, index: 0 });
  assert.equal(take(new BatchSampler(captions, options, saved), 7), whole.slice(5));
});

test('the batch size does not change what a sample is', () => {
  const small = take(new BatchSampler(captions, { ...options, batchSize: 1 }), 24);
  const large = take(new BatchSampler(captions, { ...options, batchSize: 24 }), 1)[0];
  assert.equal(
    small.flatMap((batch) => batch.captions),
    large.captions,
  );
  assert.equal(
    small.flatMap((batch) => batch.flips),
    large.flips,
  );
});

test('captions are dropped, specific or general in the shares asked for', () => {
  const [batch] = take(new BatchSampler(captions, { batchSize: 4000, seed: 1, nullText: 0.1, specific: 0.5 }), 1);
  const share = (match: (caption: string) => boolean) => batch.captions.filter(match).length / 4000;
  assert.ok(Math.abs(share((caption) => caption === '') - 0.1) < 0.02);
  assert.ok(Math.abs(share((caption) => caption.startsWith('picture')) - 0.45) < 0.03);
  assert.ok(Math.abs(share((caption) => caption.endsWith('b')) - 0.225) < 0.03);
  assert.ok(batch.flips.every((flip) => !flip));
  batch.captions.forEach((caption, i) => assert.ok(caption === '' || captions[batch.indices[i]].includes(caption)));
});

test('another seed gives another order', () => {
  const [a] = take(new BatchSampler(captions, options), 1);
  const [b] = take(new BatchSampler(captions, { ...options, seed: 8 }), 1);
  assert.not.equal(a.indices, b.indices);
});

test('what cannot be sampled is refused', () => {
  assert.throws(() => new BatchSampler([], options), /data set is empty/);
  assert.throws(() => new BatchSampler([['a'], []], options), /image 1 has no caption/);
  assert.throws(() => new BatchSampler(captions, { ...options, batchSize: 0 }), /batchSize/);
  assert.throws(() => new BatchSampler(captions, { ...options, nullText: 2 }), /\[0, 1\]/);
  assert.throws(() => new BatchSampler(captions, options, { epoch: 0, index: 10 }), /does not fit 10 images/);
});

test('pixels are gathered in the order of the batch and mirrored where asked', () => {
  const pixel = (value: number) => [value, value + 0.1, value + 0.2];
  const images = new Float32Array([0, 1, 2, 3, 4, 5, 6, 7].flatMap(pixel)); // two images of 2 × 2
  const batch = { indices: new Uint32Array([1, 0]), captions: ['', ''], flips: [true, false] };
  const expected = new Float32Array([5, 4, 7, 6, 0, 1, 2, 3].flatMap(pixel));
  assert.equal(gatherImages({ size: 2, images }, batch), expected);
  assert.equal(mirror(mirror(images.subarray(0, 12), 2), 2), images.slice(0, 12));
});

test.run();
