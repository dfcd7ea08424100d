/**
 * Keys of text encoders. OpenAI's CLIP in a single file is transformers' own: only a prefix differs. OpenCLIP's has q, k
 * and v in one matrix, and its projection the other way round.
 *
 * @see src/open_clip/transformer.py. https://github.com/mlfoundations/open_clip
 */
import { rename, rowsOf, type KeyMap, type KeyRow, type Pairs } from './rows.ts';

/** `position_ids` is a table that follows from the configuration. Some files lack the `text_model.`. */
export const clipKeys: KeyMap = {
  fromSingle: (keys) =>
    rowsOf(keys, 'single', (key) =>
      isTable(key) ? undefined : key.replace(/^(embeddings|encoder|final_layer_norm)\./, 'text_model.$1.'),
    ),
  fromDiffusers: (keys) => rowsOf(keys, 'diffusers', (key) => (isTable(key) ? undefined : key)),
};

const isTable = (key: string): boolean => key.endsWith('.position_ids');

const outer: Pairs = [
  ['token_embedding', 'text_model.embeddings.token_embedding'],
  ['positional_embedding', 'text_model.embeddings.position_embedding.weight'],
  ['ln_final', 'text_model.final_layer_norm'],
  ['text_projection', 'text_projection.weight'],
];

const inner: Pairs = [
  ['ln_1', 'layer_norm1'],
  ['ln_2', 'layer_norm2'],
  ['attn.out_proj', 'self_attn.out_proj'],
  ['mlp.c_fc', 'mlp.fc1'],
  ['mlp.c_proj', 'mlp.fc2'],
];

const thirds = ['q', 'k', 'v'] as const;

export const openClipKeys: KeyMap = {
  fromSingle: (keys) =>
    keys.flatMap((single): KeyRow[] => {
      const fused = /^transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)$/.exec(single);
      if (fused) return thirds.map((_, third) => third_(single, Number(fused[1]), fused[2], third));
      return rowsOf([single], 'single', toDiffusers, op);
    }),
  fromDiffusers: (keys) =>
    keys.flatMap((diffusers): KeyRow[] => {
      const third = /^text_model\.encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(weight|bias)$/.exec(diffusers);
      if (!third) return rowsOf([diffusers], 'diffusers', toSingle, op);
      const [, layer, letter, kind] = third;
      const single = `transformer.resblocks.${layer}.attn.in_proj_${kind}`;
      return [third_(single, Number(layer), kind, thirds.indexOf(letter as 'q'))];
    }),
};

const third_ = (single: string, layer: number, kind: string, third: number): KeyRow => ({
  single,
  diffusers: `text_model.encoder.layers.${layer}.self_attn.${thirds[third]}_proj.${kind}`,
  op: { third: third as 0 | 1 | 2 },
});

const op = (diffusers: string) => (diffusers === 'text_projection.weight' ? ('transpose' as const) : undefined);

function toDiffusers(key: string): string | undefined {
  const block = /^transformer\.resblocks\.(\d+)\.(.+)$/.exec(key);
  if (!block) return rename(key, outer, 'diffusers');
  const name = rename(block[2], inner, 'diffusers');
  return name && `text_model.encoder.layers.${block[1]}.${name}`;
}

function toSingle(key: string): string | undefined {
  const layer = /^text_model\.encoder\.layers\.(\d+)\.(.+)$/.exec(key);
  if (!layer) return rename(key, outer, 'single');
  const name = rename(layer[2], inner, 'single');
  return name && `transformer.resblocks.${layer[1]}.${name}`;
}
