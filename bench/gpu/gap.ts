/** What a dispatch costs beside its work: of JavaScript in a replay, and of the GPU between two that wait for each other. */
import { add, compile, currentGpu, scope, tensor } from '../../src/tensor/index.ts';
import { median } from '../machine.ts';

/** Microseconds for one of a thousand dispatches on 256 numbers. */
export interface Gap {
  /** Each takes what the one before it made. */
  dependent: number;
  /** All take the same. */
  independent: number;
  /** JavaScript and submission. */
  host: number;
}

const COUNT = 1000;
const RUNS = 9;

export async function measureGap({ say }: { say(line: string): void }): Promise<Gap> {
  const gpu = currentGpu();
  const x = tensor(new Float32Array(256).fill(1), [256]);
  const chain = compile((a) =>
    scope(() => {
      let y = a;
      for (let i = 0; i < COUNT; i++) y = add(y, a);
      return y;
    }),
  );
  const fan = compile((a) =>
    scope(() => {
      let y = a;
      for (let i = 0; i < COUNT; i++) y = add(a, a);
      return y;
    }),
  );
  const time = async (call: typeof chain) => {
    const [host, whole]: number[][] = [[], []];
    for (let i = 0; i < RUNS + 2; i++) {
      const start = performance.now();
      call(x).dispose();
      host.push(performance.now() - start);
      await gpu.idle();
      whole.push(performance.now() - start);
    }
    const each = (times: number[]) => (1000 * median(times.slice(2))) / COUNT;
    return { host: each(host), whole: each(whole) };
  };
  const [a, b] = [await time(chain), await time(fan)];
  for (const thing of [chain, fan, x]) thing.dispose();
  const gap = { dependent: a.whole, independent: b.whole, host: a.host };
  say(
    `  dependent ${gap.dependent.toFixed(2)} µs, independent ${gap.independent.toFixed(2)}, host ${gap.host.toFixed(2)}`,
  );
  return gap;
}
