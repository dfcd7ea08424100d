import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { trainBytePairTokenizer } from '../../nn/tokenizer.ts';
import { writeAtomic } from '../../tensor/io/files-node.ts';
import { writeJson } from './model-folder.ts';
import type { Run } from './run.ts';

/** Learn a byte-pair vocabulary from the captions. */
export async function tokenizerStage(run: Run): Promise<void> {
  const { captions } = await run.data();
  const { vocabSize, maxLength } = run.recipe.tokenizer;
  const { vocab, vocabJson, merges } = trainBytePairTokenizer(captions.flat(), vocabSize);
  const folder = join(run.model, 'tokenizer');
  await mkdir(folder, { recursive: true });
  await writeAtomic(join(folder, 'vocab.json'), vocabJson);
  await writeAtomic(join(folder, 'merges.txt'), merges);
  await writeJson(join(folder, 'tokenizer_config.json'), {
    tokenizer_class: 'CLIPTokenizer',
    model_max_length: maxLength,
    do_lower_case: true,
    bos_token: '<|startoftext|>',
    eos_token: '<|endoftext|>',
    unk_token: '<|endoftext|>',
    pad_token: '<|endoftext|>',
  });
  const size = Object.keys(vocab).length;
  await run.finish('tokenizer', { vocabSize: size, captions: captions.flat().length });
  run.say(`tokenizer: ${size} tokens from ${captions.flat().length} captions`);
}
