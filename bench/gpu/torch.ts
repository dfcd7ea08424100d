/** The same networks and shapes in PyTorch, if this machine has it: torch_baseline.py in a process of its own. */
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Milliseconds. */
export interface TorchTime {
  warm: number;
  fastest: number;
  runs: number;
}

/** What torch_baseline.py writes. */
export interface TorchResults {
  torch: string;
  device: string;
  networks: Record<string, Partial<Record<'text' | 'unet' | 'vae' | 'image', TorchTime>>>;
  shapes: ({ kind: string; shape: number[]; tflops: number } & TorchTime)[];
  training: ({ batchSize: number; mixedPrecision: 'no' | 'fp16'; gradientCheckpointing: boolean; peak: number | null } & TorchTime)[]; // prettier-ignore
  left_out: Record<string, string>;
}

interface Options {
  python: string;
  seconds: number;
  small: boolean;
  say(line: string): void;
}

/** @throws Error when there is no Python or no PyTorch, with what it said */
export async function torchBaseline(here: string, { python, seconds, small, say }: Options): Promise<TorchResults> {
  const script = [join(here, 'torch_baseline.py'), join('bench', 'gpu', 'torch_baseline.py')].find(existsSync);
  if (!script) throw new Error(`torch_baseline.py is not beside ${here}`);
  const folder = mkdtempSync(join(tmpdir(), 'rectiflow-torch-'));
  const out = join(folder, 'results.json');
  try {
    const words = [script, '--out', out, '--seconds', String(seconds), ...(small ? ['--small'] : [])];
    const said = await runUntil(python, words, seconds + 30);
    if (!existsSync(out)) throw new Error(`${python}: ${said.trim().split('\n').at(-1) || 'wrote nothing'}`);
    const results = JSON.parse(readFileSync(out, 'utf8')) as TorchResults;
    for (const [name, parts] of Object.entries(results.networks))
      say(`  ${name}: ${Object.entries(parts).map(([part, t]) => `${part} ${t.warm.toFixed(2)} ms`).join(', ')}`); // prettier-ignore
    for (const [name, why] of Object.entries(results.left_out)) say(`  ${name}: left out, ${why}`);
    return results;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** What it said on its error stream, ended after so many seconds. */
function runUntil(command: string, words: string[], seconds: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, words, { stdio: ['ignore', 'ignore', 'pipe'], timeout: Math.round(1000 * seconds) });
    let said = '';
    child.stderr.on('data', (text: Buffer) => (said += text.toString()));
    child.on('error', (error) => reject(new Error(`${command}: ${error.message}`)));
    child.on('close', () => resolve(said));
  });
}
