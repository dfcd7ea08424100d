/** What is timed, as data: `npm run bench` and `npm run bench:peers` read this one table, so that both time the same work. */

export type Work =
  | { kind: 'matmul'; M: number; K: number; N: number }
  | { kind: 'linear'; M: number; K: number; N: number }
  | { kind: 'conv'; B: number; H: number; W: number; C: number; O: number }
  | { kind: 'attention'; B: number; heads: number; Tq: number; Tk: number; D: number }
  | { kind: 'groupNormSilu'; B: number; H: number; W: number; C: number; groups: number }
  | { kind: 'layerNorm'; rows: number; cols: number }
  | { kind: 'softmax'; shape: number[] }
  | { kind: 'add'; n: number }
  | { kind: 'train'; network: 'mlp' | 'cnn'; batch: number };

export type Kind = Work['kind'];
export type WorkOf<K extends Kind> = Extract<Work, { kind: K }>;

const matmul = (M: number, K: number, N: number): Work => ({ kind: 'matmul', M, K, N });
const linear = (M: number, K: number, N: number): Work => ({ kind: 'linear', M, K, N });
const attention = (B: number, heads: number, Tq: number, Tk: number, D: number): Work => ({
  kind: 'attention',
  B,
  heads,
  Tq,
  Tk,
  D,
});
const conv = (B: number, side: number, C: number, O: number): Work => ({ kind: 'conv', B, H: side, W: side, C, O });

/** Shapes on which libraries are compared. A 3 × 3 convolution is named by channels and side. */
export const WORKS: Record<string, Work> = {
  mm512: matmul(512, 512, 512),
  mm1024: matmul(1024, 1024, 1024),
  mm2048: matmul(2048, 2048, 2048),
  mm4096x320x320: matmul(4096, 320, 320),
  mm4096x320x2560: matmul(4096, 320, 2560),
  conv320_32: conv(1, 32, 320, 320),
  conv64_64: conv(1, 64, 64, 64),
  conv128_16b4: conv(4, 16, 128, 128),
  attn: attention(1, 8, 1024, 1024, 40),
  gnsilu: { kind: 'groupNormSilu', B: 1, H: 64, W: 64, C: 320, groups: 32 },
  softmax: { kind: 'softmax', shape: [8, 1024, 1024] },
  layernorm: { kind: 'layerNorm', rows: 4096, cols: 320 },
  add16m: { kind: 'add', n: 2 ** 24 },
  trainmlp: { kind: 'train', network: 'mlp', batch: 256 },
  traincnn: { kind: 'train', network: 'cnn', batch: 16 },
};

/** Where models spend their time. SD 1.5 at 512 × 512: the U-Net's largest shapes and its smallest, and the VAE decoder's. */
export const MODELS: Record<'emoji' | 'unet' | 'vae', Work[]> = {
  emoji: [
    linear(2048, 64, 256),
    linear(512, 128, 512),
    conv(32, 8, 64, 64),
    conv(32, 4, 128, 128),
    attention(32, 4, 64, 64, 16),
    attention(32, 4, 64, 16, 16),
  ],
  unet: [
    conv(1, 64, 320, 320),
    conv(1, 32, 640, 640),
    conv(1, 16, 1280, 1280),
    conv(1, 8, 1280, 1280),
    linear(4096, 320, 320),
    linear(4096, 320, 2560),
    linear(1024, 640, 5120),
    linear(256, 1280, 10240),
    attention(1, 8, 4096, 4096, 40),
    attention(1, 8, 1024, 1024, 80),
    attention(1, 8, 4096, 77, 40),
    { kind: 'groupNormSilu', B: 1, H: 32, W: 32, C: 640, groups: 32 },
    { kind: 'layerNorm', rows: 1024, cols: 640 },
  ],
  vae: [
    conv(1, 64, 512, 512),
    conv(1, 128, 512, 512),
    conv(1, 256, 256, 256),
    conv(1, 512, 128, 128),
    { kind: 'groupNormSilu', B: 1, H: 256, W: 256, C: 256, groups: 32 },
  ],
};

/** The layers of the networks that are trained: [outputs, inputs], or [outputs, 3, 3, inputs] for a convolution. */
export const LAYERS = {
  mlp: [
    [512, 784],
    [256, 512],
    [10, 256],
  ],
  cnn: [
    [32, 3, 3, 3],
    [64, 3, 3, 32],
    [64, 3, 3, 64],
    [10, 64],
  ],
};
/** Strides of the convolutions: 32 × 32 pixels become 32 × 32, 16 × 16 and 8 × 8, then one average. */
export const CNN_STRIDES = [1, 2, 2];
export const LEARNING_RATE = 1e-3;

/** Floating-point operations of one call, a multiply-add counted as two; a training step is three forward passes. */
export function flopOf(work: Work): number | undefined {
  if (work.kind === 'matmul' || work.kind === 'linear') return 2 * work.M * work.K * work.N;
  if (work.kind === 'conv') return 2 * 9 * work.B * work.H * work.W * work.C * work.O;
  if (work.kind === 'attention') return 4 * work.B * work.heads * work.Tq * work.Tk * work.D;
  if (work.kind !== 'train') return undefined;
  const pixels = work.network === 'cnn' ? [32 ** 2, 16 ** 2, 8 ** 2, 1] : [1, 1, 1];
  const products = LAYERS[work.network].map((shape, i) => pixels[i] * sizeOf(shape));
  return 3 * 2 * work.batch * products.reduce((a, b) => a + b);
}

/** Bytes that one call must move, if everything were read and written once. */
export function bytesOf(work: Work): number | undefined {
  if (work.kind === 'groupNormSilu') return 8 * work.B * work.H * work.W * work.C;
  if (work.kind === 'layerNorm') return 8 * work.rows * work.cols;
  if (work.kind === 'softmax') return 8 * sizeOf(work.shape);
  return work.kind === 'add' ? 12 * work.n : undefined;
}

export interface Operand {
  shape: number[];
  data: Float32Array<ArrayBuffer>;
}

/** The operands of a call, channels last as everywhere here. The same numbers in every process. */
export function operandsOf(work: Work): Operand[] {
  const shapes = shapesOf(work);
  return shapes.map((shape, i) => ({ shape, data: numbers(sizeOf(shape), i + 1, scaleOf(work, shapes, i)) }));
}

function shapesOf(work: Work): number[][] {
  if (work.kind === 'matmul') return [[work.M, work.K], [work.K, work.N]]; // prettier-ignore
  if (work.kind === 'linear') return [[work.M, work.K], [work.N, work.K]]; // prettier-ignore
  if (work.kind === 'conv') return [[work.B, work.H, work.W, work.C], [work.O, 3, 3, work.C], [work.O]];
  if (work.kind === 'attention') {
    const { B, Tq, Tk } = work;
    const width = work.heads * work.D;
    return [[B, Tq, width], [B, Tk, width], [B, Tk, width]]; // prettier-ignore
  }
  if (work.kind === 'groupNormSilu') return [[work.B, work.H, work.W, work.C], [work.C], [work.C]];
  if (work.kind === 'layerNorm') return [[work.rows, work.cols], [work.cols], [work.cols]];
  if (work.kind === 'softmax') return [work.shape];
  if (work.kind === 'add') return [[work.n], [work.n]];
  const images = work.network === 'mlp' ? [work.batch, 784] : [work.batch, 32, 32, 3];
  return [images, ...LAYERS[work.network].flatMap((shape) => [shape, [shape[0]]])];
}

/** Weights are scaled by √(3 / inputs), so that what follows them keeps its size; the rest is in [−1, 1). */
function scaleOf(work: Work, shapes: number[][], i: number): number {
  if (work.kind === 'train' && i > 0 && shapes[i].length > 1) return Math.sqrt(3 / sizeOf(shapes[i].slice(1)));
  return work.kind === 'conv' && i === 1 ? Math.sqrt(3 / (9 * work.C)) : 1;
}

/** What each image of a training batch shows. */
export const labelsOf = (batch: number): Int32Array<ArrayBuffer> =>
  Int32Array.from({ length: batch }, (_, i) => (7 * i) % 10);

export const sizeOf = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

/** Uniform numbers in [−scale, scale), a function of seed and place alone. */
export function numbers(n: number, seed: number, scale = 1): Float32Array<ArrayBuffer> {
  const out = new Float32Array(n);
  const salt = Math.imul(seed, 0x9e3779b1);
  for (let i = 0; i < n; i++) {
    let x = Math.imul(i ^ salt, 0x85ebca6b);
    x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
    x = Math.imul(x ^ (x >>> 16), 0x27d4eb2f);
    out[i] = scale * (((x ^ (x >>> 15)) >>> 0) / 2 ** 31 - 1);
  }
  return out;
}
