/** What the stages after the teacher share: the frozen text side and the networks by name. */
import { join } from 'node:path';
import { CLIPTextModel, UNet2DConditionModel } from '../../nn/index.ts';
import { noGrad, scope } from '../../tensor/index.ts';
import type { ConditionalNetwork } from '../guidance.ts';
import { timestepOf } from '../rectified-flow.ts';
import type { NetworkName } from '../pipelines/options.ts';
import { openModule, openTokenizer } from './model-folder.ts';
import type { Run } from './run.ts';
import { TextTable } from './texts.ts';

/** Every caption of the data, and the empty one, through the frozen text encoder. */
export async function encodeCaptions(run: Run): Promise<TextTable> {
  const { captions } = await run.data();
  const tokenizer = await openTokenizer(join(run.model, 'tokenizer'));
  const encoder = await openModule(run.model, 'text_encoder', (config) => new CLIPTextModel(config));
  const table = await TextTable.encode(
    ['', ...captions.flat(), ...(run.hooks.validationPrompts ?? [])],
    tokenizer,
    encoder,
  );
  encoder.dispose();
  return table;
}

export const openNetwork = (run: Run, name: NetworkName): Promise<UNet2DConditionModel> =>
  openModule(run.model, name, (config) => new UNet2DConditionModel(config));

export const conditional =
  (network: UNet2DConditionModel): ConditionalNetwork =>
  (z, t, text) =>
    noGrad(() => scope(() => network.forward(z, timestepOf(t), text)));
