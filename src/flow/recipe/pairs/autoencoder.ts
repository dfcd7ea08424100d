import { join } from 'node:path';
import { AutoencoderKL } from '../../../nn/index.ts';
import { loadWeights } from '../../../nn/load.ts';
import { exists } from '../../../tensor/io/files-node.ts';
import { ModelFolderError, openModule } from '../model-folder.ts';
import { openModelParts } from '../model-parts.ts';

/** The autoencoder alone of a model: a folder with `vae`, whatever else it has, or a single file. */
export async function openAutoencoder(model: string, { variant }: { variant?: string } = {}): Promise<AutoencoderKL> {
  const make = (config: object) => new AutoencoderKL(config);
  if (await exists(join(model, 'vae'))) return openModule(model, 'vae', make, { variant });
  const parts = await openModelParts(model, { variant });
  try {
    const source = parts.sources.vae;
    if (!source) throw new ModelFolderError(`${model}: has no vae`);
    const vae = make(await parts.config('vae'));
    await loadWeights(vae, source).catch((error) => {
      vae.dispose();
      throw error;
    });
    return vae;
  } finally {
    await parts.close();
  }
}
