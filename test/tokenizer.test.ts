import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { fixText } from '../src/nn/fix-text.ts';
import { ClipTokenizer, trainBytePairTokenizer } from '../src/nn/tokenizer.ts';
import { skip } from './skip.ts';

interface Case {
  text: string;
  ids: number[];
  ids77?: number[];
  ids_nfc_only?: number[];
}

const folder = 'test/data/tokenizer';
const read = (...path: string[]) => readFileSync(join(...path), 'utf8');
const vocabulary = 'test/data/golden/tok/synthetic';
const files = { vocab: read(vocabulary, 'vocab.json'), merges: read(vocabulary, 'merges.txt') };
const cases: Case[] = JSON.parse(read(folder, 'cases.json')).cases;
const tokenizer = new ClipTokenizer(files);
const { startId, endId } = tokenizer;

/** start + the first 75 + end, padded with `pad` */
function padded(ids: number[], pad: number, length = 77): number[] {
  const kept = ids.length > length ? [...ids.slice(0, length - 1), endId] : ids;
  return [...kept, ...Array(length - kept.length).fill(pad)];
}

const test = suite('tokenizer');

test('gives the ids of transformers’ CLIPTokenizer with ftfy, whole and padded to 77', () => {
  for (const { text, ids } of cases) {
    assert.equal(tokenizer.ids(text), ids, text);
    assert.equal([...tokenizer.encode(text).ids], padded(ids, endId), text);
  }
});

test('without the repairs it gives the ids of transformers without ftfy', () => {
  const plain = new ClipTokenizer(files, { fixText: false });
  for (const { text, ids, ids_nfc_only } of cases) assert.equal(plain.ids(text), ids_nfc_only ?? ids, text);
});

test('an empty prompt is start, end and padding', () => {
  const { ids, length, cut } = tokenizer.encode('');
  assert.equal([...ids], padded([startId, endId], endId));
  assert.is(length, 2);
  assert.is(cut, '');
  assert.equal(tokenizer.encode(' \n\t ').ids, ids);
});

test('an over-long prompt is cut, ends with the end token, and what was cut is told', () => {
  const short = new ClipTokenizer(files, { maxLength: 8 });
  const { ids, length, cut } = short.encode('a photo of a cat and a dog, café 日本');
  assert.is(length, 8);
  assert.is(ids.length, 8);
  assert.is(ids[7], endId);
  assert.is(cut, 'cat and a dog , café 日本');
  assert.is(short.encode('a cat').cut, '');
});

test('a batch is the rows one after the other', () => {
  const batch = tokenizer.encodeBatch(['a cat', '', 'two dogs']);
  assert.is(batch.ids.length, 3 * 77);
  assert.equal(batch.ids.slice(77, 154), tokenizer.encode('').ids);
  assert.equal(
    batch.lengths,
    ['a cat', '', 'two dogs'].map((text) => tokenizer.ids(text).length),
  );
});

test('tokenizer_config.json sets the length and the padding', () => {
  const config = { model_max_length: 16, pad_token: '!' };
  const bang = new ClipTokenizer({ ...files, config });
  assert.equal([...bang.encode('a cat').ids], padded(tokenizer.ids('a cat'), 0, 16));
  assert.is(new ClipTokenizer({ ...files, config: { model_max_length: 1e30 } }).maxLength, 77);
});

test('decodes what it encoded', () => {
  assert.is(tokenizer.decode(tokenizer.encode('A Small RED house, 日本語 😀').ids), 'a small red house , 日本語 😀');
});

test('files that are not a CLIP tokenizer are refused with the file and line', () => {
  assert.throws(() => new ClipTokenizer({ ...files, vocab: '{"a": 1' }), /vocab\.json is not JSON/);
  assert.throws(() => new ClipTokenizer({ ...files, vocab: '["a"]' }), /token → id/);
  assert.throws(() => new ClipTokenizer({ vocab: '{"a": 1}', merges: '' }), /no '<\|startoftext\|>'/);
  assert.throws(() => new ClipTokenizer({ ...files, merges: '#version: 0.2\ni n\nqq zz\n' }), /merges\.txt:3: 'qqzz'/);
  assert.throws(() => new ClipTokenizer({ ...files, merges: 'i n\noops\n' }), /merges\.txt:2: should be two symbols/);
});

test('repairs mangled text and leaves ordinary text alone', () => {
  assert.is(fixText('cafÃ© ðŸ˜€ &amp; â€œhiâ€\x9d'), 'café 😀 & "hi"');
  for (const text of [
    'São Paulo, Årø, Âge d’or'.replace('’', "'"),
    'a < b &amp; c',
    '&nosuch; &constructor;',
    '日本語',
  ]) {
    assert.is(fixText(text), text);
  }
});

test('a trained vocabulary has CLIP’s layout and learns the words it saw', () => {
  const texts = ['red apple', 'green apple', 'red heart', 'a red, red rose', 'blue heart'];
  const { vocab, vocabJson, merges } = trainBytePairTokenizer(texts, 524);
  assert.is(Object.keys(vocab).length, 524);
  assert.is(vocab['!'], 0);
  assert.is(vocab['!</w>'], 256);
  assert.is(vocab['<|startoftext|>'], 522);
  assert.is(vocab['<|endoftext|>'], 523);
  assert.ok(merges.startsWith('#version: 0.2\n'));
  const trained = new ClipTokenizer({ vocab: vocabJson, merges }, { maxLength: 8 });
  assert.equal(trained.ids('Red Apple'), [522, vocab['red</w>'], vocab['apple</w>'], 523]);
  assert.is(trained.decode(trained.ids('a zebra in Ürümqi 🦓')), 'a zebra in ürümqi 🦓');
});

test('training does not depend on the order of the texts and stops when nothing repeats', () => {
  const texts = ['red apple', 'green apple', 'red heart', 'strawberry', 'blueberry', 'berry'];
  const { merges, vocab } = trainBytePairTokenizer(texts, 518);
  assert.is(trainBytePairTokenizer([...texts].reverse(), 518).merges, merges);
  const all = trainBytePairTokenizer(texts, 100_000);
  assert.ok(Object.keys(all.vocab).length < 600 && Object.keys(all.vocab).length > Object.keys(vocab).length);
  assert.throws(() => trainBytePairTokenizer(texts, 513), /below 514/);
});

const golden = process.env.RECTIFLOW_GOLDEN ?? '';
const real = 'gives the golden ids with the real CLIP vocabulary';
if (golden && existsSync(join(golden, 'extra/clip_vocab/vocab.json'))) {
  test(real, () => {
    const vocabFolder = join(golden, 'extra/clip_vocab');
    const clip = new ClipTokenizer({ vocab: read(vocabFolder, 'vocab.json'), merges: read(vocabFolder, 'merges.txt') });
    const { cases } = JSON.parse(read(golden, 'tok/clip_real.json')) as { cases: Case[] };
    for (const { text, ids, ids77 } of cases) {
      assert.equal(clip.ids(text), ids, text);
      assert.equal([...clip.encode(text).ids], ids77, text);
    }
  });
} else {
  skip(test, real, 'set RECTIFLOW_GOLDEN to a folder with golden cases');
}

test.run();
