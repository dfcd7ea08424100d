import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as library from '../src/index.ts';
import { Gpu } from '../src/kernels/index.ts';
import { currentGpu, scope, useGpu, type Tensor } from '../src/tensor/index.ts';
import { elsewhere, idle, make, tensorOf, type Entry, type Row } from './bad-input-rows.ts';
import { exempt, libraryEntries } from './bad-input-library.ts';
import { tensorEntries } from './bad-input-tensors.ts';
import { testGpu } from './check-op.ts';

const test = suite('bad input');
useGpu(await testGpu());
const other = await Gpu.create();
const entries: Record<string, Entry> = { ...tensorEntries, ...libraryEntries };
const functions = Object.entries(library).filter(([, value]) => typeof value === 'function');

test('every exported function has rows here, or a reason for none', () => {
  const names = functions.map(([name]) => name);
  const missing = names.filter((name) => !entries[name]?.rows.length && !entries[name]?.good && !exempt[name]);
  assert.equal(missing, [], 'add rows to test/bad-input-tensors.ts or test/bad-input-library.ts');
  const unknown = [...Object.keys(entries), ...Object.keys(exempt)].filter((name) => !names.includes(name));
  assert.equal(unknown, [], 'rows of functions that are not exported');
  assert.equal(
    Object.keys(exempt).filter((name) => entries[name]),
    [],
    'exempt, but there are rows',
  );
});

/** What a call gives or throws; a promise counts with what it settles to. */
async function outcome(call: () => unknown): Promise<{ error?: Error; tensor?: Tensor }> {
  try {
    return { tensor: tensorOf(await call()) };
  } catch (error) {
    return { error: error as Error };
  }
}

/** @returns what is wrong with what the row does, if anything is */
async function complaint({ what, call, wants }: Row): Promise<string | undefined> {
  const { error, tensor } = await outcome(call);
  if (wants instanceof RegExp) {
    if (!error) return `${what}: not refused${tensor ? `, gave [${tensor.shape.join(', ')}]` : ''}`;
    if (!wants.test(error.message)) return `${what}: refused with\n${error.message}\n  not ${wants}`;
    return undefined;
  }
  if (error) return `${what}: refused with\n${error.message}`;
  if (!tensor) return `${what}: gave no tensor`;
  const got = [...(await tensor.read())];
  const same = (a: number, b: number) => Object.is(a, b) || Math.abs(a - b) <= 1e-6 * Math.abs(b);
  if (tensor.shape.join() === wants.shape.join() && got.length === wants.data.length)
    if (got.every((v, i) => same(v, wants.data[i]))) return undefined;
  return `${what}: gave [${tensor.shape.join(', ')}] ${got.join(' ')}, not [${wants.shape.join(', ')}] ${wants.data.join(' ')}`;
}

/** Each operand in turn is freed, lies on another device, holds integers. */
function operandRows(name: string, { good, op = name }: Entry): Row[] {
  if (!good) return [];
  const { operands, call } = good;
  const having = (k: number, odd: () => Tensor) => () => call(...operands.map((o, i) => (i === k ? odd() : make(o))));
  const refused = (what: string) => new RegExp(`^(${op}): ${what}`);
  return operands.flatMap((operand, k): Row[] => {
    const freed = () => {
      const tensor = make(operand);
      tensor.dispose();
      return tensor;
    };
    const rows: Row[] = [
      { what: `operand ${k + 1} freed`, call: having(k, freed), wants: refused('an operand was already freed') },
    ];
    if (operands.length > 1) {
      const there = having(k, () => elsewhere(other, operand));
      rows.push({
        what: `operand ${k + 1} elsewhere`,
        call: there,
        wants: refused('operands are on different devices'),
      });
    }
    if (operand.dtype === 'f32') {
      const integers = having(k, () => make({ ...operand, dtype: 'i32' }));
      const wants = new RegExp(`^(${op}): (\\w+ must be f32|dtypes differ)`);
      rows.push({ what: `operand ${k + 1} of integers`, call: integers, wants });
    }
    return rows;
  });
}

for (const [name, entry] of Object.entries(entries)) {
  test(`${name} with wrong input`, async () => {
    const complaints: string[] = [];
    if (entry.good) {
      const { operands, call } = entry.good;
      const { error } = await outcome(() => scope(() => call(...operands.map(make))));
      if (error) complaints.push(`the call that should work: ${error.message}`);
    }
    for (const row of [...operandRows(name, entry), ...entry.rows]) {
      await scope(async () => {
        const found = await complaint(row);
        if (found) complaints.push(found);
      });
    }
    await idle().catch((error: Error) => complaints.push(`the GPU complained: ${error.message}`));
    assert.not.ok(complaints.length, `${name}\n${complaints.join('\n')}`);
  });
}

test('what was refused leaves nothing behind on the device', async () => {
  await currentGpu().idle();
  const before = currentGpu().memory().arrays;
  for (const name of ['add', 'conv2d', 'matmul', 'attention', 'groupNorm', 'pad', 'concat']) {
    for (const { call } of entries[name].rows) await scope(async () => void (await outcome(call)));
  }
  await currentGpu().idle();
  assert.is(currentGpu().memory().arrays, before);
});

test.after(() => other.destroy());
test.run();
