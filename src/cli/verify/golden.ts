/** Folders of golden data, format "oracle-1": MANIFEST.json names the cases, their tensors lie in safetensors files. */
import { access } from 'node:fs/promises';
import { join } from 'node:path';
import { readBytes, readTensors } from '../../tensor/io/files-node.ts';
import type { HostTensor } from '../../tensor/io/safetensors.ts';
import { affine, integers, parameter, ruleHash, ruleUniform } from './rule.ts';

/** One line of the manifest. Fields beyond these depend on the group. */
export interface GoldenCase {
  /** group/name */
  id: string;
  group: string;
  /** safetensors file, relative to the folder. */
  file?: string;
  /** JSON side file, relative to the folder. */
  json?: string;
  tensors?: Record<string, number[]>;
  [field: string]: any;
}

/** How an input is made: from the rule, or `literal` (it is in the file). */
export interface InputRule {
  shape: number[];
  literal?: boolean;
  a?: number;
  b?: number;
  int_lo?: number;
  int_hi?: number;
}

/** A folder of golden data. */
export class Golden {
  private constructor(
    readonly folder: string,
    readonly set: string,
    readonly cases: GoldenCase[],
  ) {}

  static async open(folder: string): Promise<Golden> {
    const manifest = parse(
      await readBytes(join(folder, 'MANIFEST.json')).catch((error) => {
        throw new Error(`${folder} is not a folder of golden data\n  ${(error as Error).message}`);
      }),
      'MANIFEST.json',
    );
    if (manifest.format !== 'oracle-1' || manifest.rule !== 'u32-v1' || !Array.isArray(manifest.cases)) {
      throw new Error(
        `${folder}/MANIFEST.json has format ${manifest.format} and rule ${manifest.rule}\n` +
          '  this command reads format oracle-1 with rule u32-v1',
      );
    }
    const golden = new Golden(folder, String(manifest.set ?? ''), manifest.cases);
    await golden.checkRule();
    return golden;
  }

  path(relative: string): string {
    return join(this.folder, relative);
  }

  async json(relative: string): Promise<any> {
    return parse(await readBytes(this.path(relative)), relative);
  }

  /** The tensors in a case's file, in PyTorch's layout. */
  async tensors(c: GoldenCase): Promise<Record<string, HostTensor>> {
    return c.file ? (await readTensors(this.path(c.file))).tensors : {};
  }

  /** The rule on this machine against the test values that came with the data, where there are some. */
  private async checkRule(): Promise<void> {
    const file = 'rule_vectors.json';
    if (
      !(await access(this.path(file)).then(
        () => true,
        () => false,
      ))
    )
      return;
    for (const { seed, name, shape, gain, hash, index, u, values } of (await this.json(file)).vectors) {
      const got = parameter(name, shape, { seed, gain });
      const wrong =
        ruleHash(seed, name) !== hash
          ? 'hash'
          : index.some((i: number, k: number) => ruleUniform(hash, i) !== u[k])
            ? 'u'
            : index.some((i: number, k: number) => got[i] !== Math.fround(values[k]))
              ? 'value'
              : '';
      if (wrong) throw new Error(`number rule u32-v1: the ${wrong} of ${name} differs from ${file}`);
    }
  }
}

/** An input from its rule. NAME and SEED as in the README of the data: `in.<input>` with the seed of the weights. */
export function inputFromRule(rule: InputRule, seed: string, name: string): HostTensor {
  const count = rule.shape.reduce((n, d) => n * d, 1);
  if (rule.literal) throw new Error(`${name} is literal and must be in the file of the case`);
  const data =
    rule.int_lo !== undefined
      ? integers(count, seed, name, rule.int_lo, rule.int_hi!)
      : affine(count, seed, name, rule.a ?? 1, rule.b ?? 0);
  return { shape: rule.shape, data };
}

function parse(bytes: Uint8Array, file: string): any {
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch (error) {
    throw new Error(`${file} is not JSON (${(error as Error).message})`);
  }
}
