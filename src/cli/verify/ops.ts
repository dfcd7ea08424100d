/**
 * Group "op": every operation of the tensor library against PyTorch, forwards and backwards.
 *
 * Inputs are permuted on the host where we keep channels last, outputs and gradients are permuted back.
 */
import * as library from '../../tensor/index.ts';
import { noGrad, Tensor, tensor } from '../../tensor/index.ts';
import type { HostTensor } from '../../tensor/io/safetensors.ts';
import { inputFromRule, type InputRule } from './golden.ts';
import { opTable, type OpRow } from './op-table.ts';
import { Skip, tolerance, type Check, type Context, type GoldenCase, type Runner } from './runner.ts';
import { gradientCheck } from './compare.ts';

/** The tensor library; asking it for an operation that it lacks skips the case. */
export const ops: Record<string, (...args: any[]) => any> = new Proxy({ ...library } as Record<string, any>, {
  get(all, name: string) {
    if (!all[name]) throw new Skip(`op not implemented yet: ${name}`);
    return all[name];
  },
});

export const runOp: Runner = async (c, context) => {
  const row = opTable[c.op];
  if (!row) throw new Skip(`op not implemented yet: ${c.op}`);
  const host = await inputs(c, context);
  const limit = tolerance(c),
    want = host['out.y'];
  if (row.host) return hostChecks(c, row.host, host);
  await context.gpu();
  const grads: string[] = c.grads ?? [];
  const operands: Record<string, Tensor> = {};
  for (const [name, value] of Object.entries(host)) {
    if (!name.startsWith('in.')) continue;
    operands[name.slice(3)] = upload(row, name.slice(3), value, grads.includes(name.slice(3)));
  }
  const y = row.run!(operands, attributes(c), ops);
  const checks: Check[] = [
    { name: 'y', got: await download(row, 'y', y, want.shape), want: want.data, tolerance: limit },
  ];
  if (grads.length === 0) return checks;
  backward(row, y, host['ct.y']);
  const largest = Math.max(
    ...Object.keys(host)
      .filter((name) => /^(grad|ct)\./.test(name))
      .map((name) => maxAbs(host[name].data)),
  );
  for (const name of grads) {
    const gradient = operands[name].grad;
    if (!gradient) throw new Error(`no gradient reached ${name}`);
    const want = host[`grad.${name}`],
      got = await download(row, name, gradient, want.shape);
    checks.push(gradientCheck(`grad.${name}`, got, want.data, limit, largest));
  }
  return checks;
};

/** What the engine computes on the host, in float64. */
function hostChecks(c: GoldenCase, run: NonNullable<OpRow['host']>, host: Record<string, HostTensor>): Check[] {
  const operands = Object.fromEntries(Object.entries(host).map(([name, value]) => [name.replace(/^in\./, ''), value]));
  const got = run(operands, c.attrs ?? {});
  const checks: Check[] = [{ name: 'y', got, want: host['out.y'].data, tolerance: tolerance(c) }];
  if (host['out.exact']) checks.push({ name: 'exact', got, want: host['out.exact'].data, tolerance: 1e-6 });
  return checks;
}

/** The case's own, and the number of heads where an operand has that axis. */
function attributes(c: GoldenCase): Record<string, any> {
  return { heads: c.tensors?.['in.q']?.[1], ...c.attrs };
}

/** All tensors of the case; inputs that are not in its file come from the rule. */
async function inputs(c: GoldenCase, context: Context): Promise<Record<string, HostTensor>> {
  const host = await context.tensors(c);
  const short = c.id.slice(c.id.indexOf('/') + 1);
  for (const [name, rule] of Object.entries((c.gen ?? {}) as Record<string, InputRule>)) {
    host[`in.${name}`] ??= inputFromRule(rule, c.seed, `${short}.${name}`);
  }
  if (c.grads?.length) {
    const ct: InputRule = { shape: host['out.y'].shape, a: Math.sqrt(3), b: 0 };
    host['ct.y'] ??= inputFromRule(ct, c.seed, `${short}.ct`);
  }
  return host;
}

function upload(row: OpRow, name: string, value: HostTensor, requiresGrad: boolean): Tensor {
  const { data, shape } = row.layouts?.[name]?.ours(value) ?? value;
  const dtype = row.integers?.includes(name) ? 'i32' : 'f32';
  return tensor(data, shape, { dtype, requiresGrad });
}

/** Numbers in the order of PyTorch, where the tensor has the shape `theirs`. */
async function download(
  row: OpRow,
  name: string,
  value: Tensor,
  theirs: readonly number[],
): Promise<ArrayLike<number>> {
  const data = await value.read();
  return row.layouts?.[name]?.theirs({ shape: [...value.shape], data }, theirs).data ?? data;
}

/** Gradients of Σ y · ct, the loss whose derivative by y is the cotangent. */
function backward(row: OpRow, y: Tensor, cotangent: HostTensor): void {
  const ct = noGrad(() => upload(row, 'y', cotangent, false));
  ops.sum(ops.mul(y, ct)).backward();
}

function maxAbs(data: Float32Array): number {
  return data.reduce((largest, x) => Math.max(largest, Math.abs(x)), 0);
}
