/** The tokenizer against transformers' CLIPTokenizer: every id of every text must be equal. */
import { access, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ClipTokenizer } from '../../nn/tokenizer.ts';
import { Skip, type Check, type GoldenCase, type Context, type Runner } from './runner.ts';

interface TokCase {
  text: string;
  ids: number[];
  ids77: number[];
  /** Without the repairs of fix-text.ts, where those change something. */
  ids_nfc_only?: number[];
}

export const runTok: Runner = async (c, context) => {
  const { vocab, merges } = await vocabulary(c, context);
  const files = { vocab: await readFile(vocab, 'utf8'), merges: await readFile(merges, 'utf8') };
  const tokenizer = new ClipTokenizer(files),
    plain = new ClipTokenizer(files, { fixText: false });
  const { cases } = (await context.json(c.json!)) as { cases: TokCase[] };
  return cases.flatMap(({ text, ids, ids77, ids_nfc_only }): Check[] => [
    { name: `ids of ${JSON.stringify(text).slice(0, 40)}`, got: tokenizer.ids(text), want: ids, tolerance: 0 },
    {
      name: `ids77 of ${JSON.stringify(text).slice(0, 40)}`,
      got: tokenizer.encode(text).ids,
      want: ids77,
      tolerance: 0,
    },
    {
      name: `ids of ${JSON.stringify(text).slice(0, 40)}, unrepaired`,
      got: plain.ids(text),
      want: ids_nfc_only ?? ids,
      tolerance: 0,
    },
  ]);
};

/** The case's own vocabulary, or the real CLIP one where somebody has put it. */
async function vocabulary(c: GoldenCase, context: Context): Promise<{ vocab: string; merges: string }> {
  const own = { vocab: context.path(String(c.vocab)), merges: context.path(String(c.merges)) };
  const real = ['extra/clip_vocab', 'clip_vocab'].map((folder) => ({
    vocab: context.path(join(folder, 'vocab.json')),
    merges: context.path(join(folder, 'merges.txt')),
  }));
  const named = process.env.RECTIFLOW_CLIP_VOCAB;
  if (named) real.unshift({ vocab: join(named, 'vocab.json'), merges: join(named, 'merges.txt') });
  for (const files of c.merges ? [own] : real) {
    const there = await Promise.all(
      [files.vocab, files.merges].map((file) =>
        access(file).then(
          () => true,
          () => false,
        ),
      ),
    );
    if (there.every(Boolean)) return files;
  }
  throw new Skip(
    'needs the real CLIP vocabulary: vocab.json and merges.txt in extra/clip_vocab, or in a folder ' +
      'named by RECTIFLOW_CLIP_VOCAB',
  );
}
