import { currentGpu, Tensor } from './tensor.ts';
import { keep, scope } from './scope.ts';
import type { Plan, PlanMemory } from '../kernels/plan.ts';
import type { Gpu } from '../kernels/index.ts';

/** What a compiled function may return: tensors, also in arrays and plain objects. */
export type Recordable = Tensor | undefined | void | readonly Recordable[] | { readonly [key: string]: Recordable };

/** A function that records itself at its first call and is replayed from then on. */
export interface Compiled<I extends readonly Tensor[], R extends Recordable> {
  (...inputs: I): R;
  /** Once recorded: dispatches in a replay, and bytes against those of the eager run. */
  readonly plan: { dispatches: number; memory: PlanMemory } | undefined;
  /** Free the buffers of the plan. */
  dispose(): void;
  /** The same, for `using`. */
  [Symbol.dispose](): void;
}

/**
 * Record what `fn` does at its first call, plan its memory, and replay it at every call: the same kernels in the same order
 * on the same numbers, hence the same bits, without the JavaScript in between. Forward, backward and optimiser step may all
 * be inside.
 *
 *     const step = compile((x, y) => { const loss = mse(model.forward(x), y); loss.backward(); optimizer.step(); return loss; });
 *     for (…) { using loss = step(x, y); }
 *
 * Inputs are copied in and results copied out, so both are the caller's, as always. Everything else that `fn` reads is taken as
 * it is at the first call: tensors by reference (weights, optimiser state), numbers and JavaScript data by value. What
 * changes from call to call must be an input tensor, or be fed by its owner, as optimisers feed `optimizer.lr`.
 *
 * @throws GpuError when inputs change shape or dtype, when `fn` reads numbers back, is async, or leaves tensors behind
 */
export function compile<I extends readonly Tensor[], R extends Recordable>(fn: (...inputs: I) => R): Compiled<I, R> {
  let recorded: { gpu: Gpu; plan: Plan; rebuild: (tensors: readonly Tensor[]) => R } | undefined;
  const call = (...inputs: I): R => {
    const gpu = currentGpu();
    if (gpu.recording) return fn(...inputs);
    const wrong = inputs.findIndex((input) => !(input instanceof Tensor));
    if (wrong >= 0) throw new TypeError(`compile: input ${wrong} is not a Tensor\n  make one with tensor(…)`);
    if (inputs.some((input) => input.requiresGrad))
      throw new Error(
        'compile: no gradient flows out through an input\n  call backward() inside, or take the input in from outside as a parameter',
      );
    recorded ??= recordFunction(gpu, fn, inputs);
    if (inputs.length !== recorded.plan.inputs.length)
      throw new TypeError(`compile: recorded with ${recorded.plan.inputs.length} inputs, called with ${inputs.length}`);
    const outputs = gpu.replay(
      recorded.plan,
      inputs.map(({ array }) => array),
    );
    return recorded.rebuild(outputs.map((array) => new Tensor(array)));
  };
  const dispose = () => {
    if (recorded) recorded.gpu.forgetPlan(recorded.plan);
    recorded = undefined;
  };
  return Object.defineProperty(Object.assign(call, { dispose, [Symbol.dispose]: dispose }), 'plan', {
    get: () => recorded && { dispatches: recorded.plan.dispatches, memory: recorded.plan.memory },
  }) as unknown as Compiled<I, R>;
}

function recordFunction<I extends readonly Tensor[], R extends Recordable>(
  gpu: Gpu,
  fn: (...inputs: I) => R,
  inputs: I,
) {
  let template: Template;
  const plan = gpu.record(
    inputs.map(({ array }) => array),
    (arrays) => {
      const found: Tensor[] = [];
      const result = scope(() => {
        const value = fn(...(arrays.map((array) => new Tensor(array.view())) as unknown as I));
        template = describe(value, found);
        return found;
      });
      return result.map((tensor) => {
        const array = tensor.array.view();
        if (array.storage.planned) keep(tensor).dispose(); // weights that are returned stay
        return array;
      });
    },
  );
  return { gpu, plan, rebuild: (tensors: readonly Tensor[]) => rebuild(template, tensors) as R };
}

/** Where tensors lie in a result: their numbers in place of them. */
type Template = number | undefined | Template[] | { [key: string]: Template };

function describe(value: Recordable, found: Tensor[]): Template {
  if (value === undefined) return undefined;
  if (value instanceof Tensor) {
    const at = found.indexOf(value);
    return at >= 0 ? at : found.push(value) - 1;
  }
  if (value instanceof Promise) throw new TypeError('compile: an async function cannot be recorded');
  if (Array.isArray(value)) return value.map((item) => describe(item, found));
  if (typeof value === 'object' && Object.getPrototypeOf(value) === Object.prototype)
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, describe(item as Recordable, found)]));
  throw new TypeError(
    `compile: the function returned ${typeof value}, which has no numbers yet\n  return tensors, in arrays or plain objects`,
  );
}

function rebuild(template: Template, tensors: readonly Tensor[]): Recordable {
  if (template === undefined) return undefined;
  if (typeof template === 'number') return tensors[template];
  if (Array.isArray(template)) return template.map((item) => rebuild(item, tensors));
  return Object.fromEntries(Object.entries(template).map(([key, item]) => [key, rebuild(item, tensors)]));
}
