/** What a loss scale does, by the names of PyTorch's GradScaler. */
export interface LossScaleOptions {
  /** Where it begins (65536). */
  initScale?: number;
  /** Steps without overflow until it doubles (2000). */
  growthInterval?: number;
}

/** What a checkpoint keeps of it. */
export interface LossScaleState {
  scale: number;
  goodSteps: number;
}

/** Larger ones would bring losses themselves to the end of f32. */
const LARGEST = 2 ** 24;
const SMALLEST = 2 ** -14;

/**
 * The factor on a loss that brings small gradients into the range of halves. It doubles after `growthInterval` good steps and halves
 * when a gradient overflows; the optimiser skips that step. A power of two, so that scaling rounds nothing.
 * @see Micikevicius et al. 2017, Mixed Precision Training, §3.2. https://arxiv.org/abs/1710.03740
 */
export class LossScale {
  scale: number;
  /** Since it last changed. */
  goodSteps = 0;
  readonly #growthInterval: number;

  constructor({ initScale = 65536, growthInterval = 2000 }: LossScaleOptions = {}) {
    if (!(initScale > 0 && Number.isInteger(Math.log2(initScale))))
      throw new RangeError(`loss scale: initScale is ${initScale}, must be a power of two`);
    if (!(Number.isInteger(growthInterval) && growthInterval > 0))
      throw new RangeError(`loss scale: growthInterval is ${growthInterval}, must be a whole number above 0`);
    this.scale = initScale;
    this.#growthInterval = growthInterval;
  }

  /** After each step: were its gradients finite? */
  update(finite: boolean): void {
    this.goodSteps = finite ? this.goodSteps + 1 : 0;
    if (!finite) this.scale = Math.max(SMALLEST, this.scale / 2);
    else if (this.goodSteps === this.#growthInterval) {
      this.scale = Math.min(LARGEST, this.scale * 2);
      this.goodSteps = 0;
    }
  }

  /** Whether an overflow at this scale is the network's fault, not the scale's. */
  get isLow(): boolean {
    return this.scale <= 1;
  }

  get state(): LossScaleState {
    return { scale: this.scale, goodSteps: this.goodSteps };
  }

  set state({ scale, goodSteps }: LossScaleState) {
    this.scale = scale;
    this.goodSteps = goodSteps;
  }
}
