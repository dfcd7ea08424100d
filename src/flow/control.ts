/**
 * ControlNets while sampling: several at once, with guidance, for batches, during a part of the steps.
 * @see Zhang et al. 2023, Adding Conditional Control to Text-to-Image Diffusion Models. https://arxiv.org/abs/2302.05543
 */
import { shapeError } from '../kernels/index.ts';
import { concat, expand, narrow, reshape, scope, Tensor, zeros } from '../tensor/index.ts';
import { sumResiduals } from '../nn/models/controlnet.ts';
import type { ControlNetModel, ControlOptions } from '../nn/models/controlnet.ts';
import type { ControlResiduals } from '../nn/models/unet.ts';

/** A ControlNet, what it sees and how much it counts. */
export interface Control {
  net: ControlNetModel;
  /** [n, 8H, 8W, 3] in [0, 1]: one for all, or one for each prompt. */
  image: Tensor;
  /** 1 when not given. */
  conditioningScale?: number;
  /** The part of the steps in which it counts: from 0 to 1 when not given. */
  start?: number;
  end?: number;
}

/** One evaluation of the network while sampling. */
export interface ControlCall extends Pick<ControlOptions, 'added'> {
  z: Tensor; // [B, H, W, C], with guidance [2B, H, W, C], the half without texts first
  times: number | readonly number[] | Tensor;
  text: Tensor; // as many as z
  /** Whether there are two halves. */
  guidance: boolean;
  /** Control without a text: falls off towards high resolutions, and is absent from the half without texts. */
  guessMode?: boolean;
  /** Of `steps`, from 0. */
  step: number;
  steps: number;
}

/** What to give the U-Net: nothing when no ControlNet counts at this step. @throws ShapeError, RangeError */
export function controlResiduals(controls: readonly Control[], call: ControlCall): ControlResiduals {
  const { z, times, text, guidance, guessMode = false, added } = call;
  const B = z.shape[0];
  if (guidance && B % 2) throw shapeError('controlResiduals', 'guidance wants two halves', { 'z [2B, H, W, C]': z });
  const active = controls.filter((control) => isActive(control, call));
  const half = guidance && guessMode;
  const later = <T extends Tensor | readonly unknown[]>(x: T): T => (half ? laterHalf(x) : x) as T;
  return scope(() => {
    const made = active.map(({ net, image, conditioningScale }) =>
      net.forward(
        later(z),
        typeof times === 'number' ? times : later(times),
        later(text),
        repeatControl(image, half ? B / 2 : B, guidance && !half),
        {
          conditioningScale,
          guessMode,
          added: added && { textEmbeds: later(added.textEmbeds), timeIds: later(added.timeIds) },
        },
      ),
    );
    const { downBlockAdditionalResiduals: down, midBlockAdditionalResidual: mid } = sumResiduals(made);
    if (!half || !down || !mid) return { downBlockAdditionalResiduals: down, midBlockAdditionalResidual: mid };
    const withNothing = (x: Tensor) => concat([zeros(x.shape, x.dtype), x], { axis: 0 });
    return { downBlockAdditionalResiduals: down.map(withNothing), midBlockAdditionalResidual: withNothing(mid) };
  });
}

/**
 * Each control image next to its copies, as pictures of one prompt lie; with `guidance` all of it twice.
 * image: [n, H, W, C] → [batch, H, W, C]
 * @throws ShapeError when the batch is no multiple of the images
 */
export function repeatControl(image: Tensor, batch: number, guidance: boolean): Tensor {
  const [n, ...size] = image.shape;
  const times = batch / (guidance ? 2 : 1) / n;
  if (!(Number.isInteger(times) && times > 0)) {
    throw shapeError('repeatControl', `${n} control images do not go into a batch of ${batch}`, {
      'image [n, H, W, C]': image,
      guidance: guidance ? 'yes: two halves' : 'no',
    });
  }
  return scope(() => {
    const copies = expand(reshape(image, [n, 1, ...size]), [n, times, ...size]);
    const all = reshape(copies, [n * times, ...size]);
    return guidance ? concat([all, all], { axis: 0 }) : all;
  });
}

function laterHalf(x: Tensor | readonly unknown[]): Tensor | readonly unknown[] {
  if (!(x instanceof Tensor)) return x.slice(x.length / 2);
  const length = x.shape[0] / 2;
  return narrow(x, { axis: 0, start: length, length });
}

/** As diffusers: a step counts when all of it lies between start and end. */
function isActive({ start = 0, end = 1 }: Control, { step, steps }: ControlCall): boolean {
  if (!(start >= 0 && end <= 1 && start < end))
    throw new RangeError(`controlResiduals: from ${start} to ${end} is no part of the steps`);
  return step / steps >= start && (step + 1) / steps <= end;
}
