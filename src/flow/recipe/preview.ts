/** Sample sheets while training goes on. */
import { AutoencoderKL } from '../../nn/index.ts';
import { noGrad, scope, tensor } from '../../tensor/index.ts';
import type { Tensor } from '../../tensor/index.ts';
import { guided } from '../guidance.ts';
import type { ConditionalNetwork } from '../guidance.ts';
import { seededNoise, unscaleLatents } from '../latents.ts';
import { concatenate } from '../pipelines/arrays.ts';
import { timestepOf } from '../rectified-flow.ts';
import { euler } from '../solvers.ts';
import { openModule } from './model-folder.ts';
import type { StageName } from './recipe.ts';
import type { Run } from './run.ts';
import type { Network } from '../../nn/models/network.ts';

export interface SheetRequest {
  prompts: string[];
  network: Network;
  /** What the network says the velocity is; its output, unless given. */
  velocity?: ConditionalNetwork;
  title: string;
  columns: { steps: number; guidanceScale: number }[];
  encode(texts: string[]): Tensor;
}

/** Prompts as columns, one row for each way of sampling; every picture of a column starts from the same noise. */
export async function sampleSheet(
  run: Run,
  stage: StageName,
  { prompts, network, velocity, title, columns, encode }: SheetRequest,
): Promise<void> {
  if (!run.hooks.artist) return;
  const vae = await openModule(run.model, 'vae', (config) => new AutoencoderKL(config));
  try {
    const { sample_size: side, in_channels: channels } = network.config;
    const shape = [prompts.length, side, side, channels];
    const noise = concatenate(prompts.map((_, i) => seededNoise(1000 + i, [side, side, channels])));
    const rows: { title: string; images: Float32Array[] }[] = [];
    let size = 0;
    for (const { steps, guidanceScale } of columns) {
      const z = noGrad(() =>
        scope(() => {
          const nullText = guidanceScale > 1 ? encode(prompts.map(() => '')) : undefined;
          const guide = guided(
            velocity ?? ((z, t, text) => network.forward(z, timestepOf(t), text)),
            encode(prompts),
            nullText,
            guidanceScale,
          );
          return euler(guide, tensor(noise, shape), steps);
        }),
      );
      const latents = (await z.read()) as Float32Array;
      z.dispose();
      const decoded = noGrad(() =>
        scope(() => vae.decode(tensor(unscaleLatents(latents, channels, vae.config), shape))),
      );
      const pixels = (await decoded.read()) as Float32Array;
      decoded.dispose();
      size = decoded.shape[1];
      const each = size * size * 3;
      rows.push({
        title: `${steps} step${steps > 1 ? 's' : ''}${guidanceScale > 1 ? `, guidance ${guidanceScale}` : ''}`,
        images: prompts.map((_, i) => pixels.slice(i * each, (i + 1) * each)),
      });
    }
    await run.sheet(stage, {
      title: `${run.recipe.name} · ${title}`,
      size,
      rows,
      columns: prompts.map((prompt) => ({ title: prompt })),
    });
  } finally {
    vae.dispose();
  }
}
