/** LPIPS from the user's own files: one of the lpips package, or torchvision's network and the package's heads. */
import { LPIPS } from '../../nn/index.ts';
import type { LPIPSNet, StateDict } from '../../nn/index.ts';
import { readFloat32 } from '../../tensor/io/weights.ts';
import { openWeights } from '../../tensor/io/weights-node.ts';
import { ModelFolderError } from './model-folder.ts';

const heads = /^lin\d\.model\.1\.weight$/;

/**
 * Which network it is shows in the weights.
 * @throws ModelFolderError when there are no files, they are no weights of LPIPS, or not all of them
 */
export async function openLpips(files: readonly string[]): Promise<LPIPS> {
  if (files.length === 0)
    throw new ModelFolderError(
      'the loss LPIPS wants weights, which do not come with this project\n  ' +
        'give --lpips_model: AlexNet or VGG with the heads of the lpips package, in one file or two\n  ' +
        'or train with --loss_type l2 or huber, which want none',
    );
  const tensors: StateDict = {};
  for (const file of files) {
    const source = await openWeights(file).catch((error: Error) => {
      throw new ModelFolderError(`${file}: ${error.message.replace(`${file}: `, '')}`, { cause: error });
    });
    try {
      for (const key of source.entries.keys()) tensors[key] = await readFloat32(source, key);
    } finally {
      await source.close();
    }
  }
  const name = files.join(' and ');
  const net = netOf(tensors);
  if (!net)
    throw new ModelFolderError(
      `${name}: not the weights of LPIPS\n  wanted features.0.weight or net.slice1.0.weight of AlexNet, VGG or SqueezeNet`,
    );
  if (!Object.keys(tensors).some((key) => heads.test(key)))
    throw new ModelFolderError(
      `${name}: the network without the heads of LPIPS\n  missing: lin0.model.1.weight and the others\n  ` +
        `give the file of the lpips package too: --lpips_model ${files[0]} --lpips_model ${net}.pth`,
    );
  const lpips = new LPIPS(net);
  try {
    lpips.loadStateDict(tensors);
    return lpips;
  } catch (error) {
    lpips.dispose();
    throw new ModelFolderError(`${name}: ${(error as Error).message}`, { cause: error });
  }
}

/** By the first convolution: 11 × 11 is AlexNet's; SqueezeNet has blocks that are called so. */
function netOf(tensors: StateDict): LPIPSNet | undefined {
  const first = tensors['features.0.weight'] ?? tensors['net.slice1.0.weight'];
  if (first?.shape.length !== 4) return undefined;
  if (first.shape[2] === 11) return 'alex';
  return Object.keys(tensors).some((key) => key.includes('.squeeze.')) ? 'squeeze' : 'vgg';
}
