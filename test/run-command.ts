/** Commands of the command line inside a test's own process. */
import { runCommand } from '../src/cli/command.ts';
import type { Gpu } from '../src/kernels/index.ts';
import { useGpu } from '../src/tensor/index.ts';

/** What a command prints, and what went wrong. It opens a device of its own; `gpu` is the test's again afterwards. */
export async function printed(command: Parameters<typeof runCommand>[0], words: string[], gpu?: Gpu): Promise<string> {
  const lines: string[] = [];
  const { log, error } = console;
  console.log = console.error = (...parts: unknown[]) => void lines.push(parts.join(' '));
  try {
    await runCommand(command, words).catch((failure: Error) => void lines.push(failure.message));
  } finally {
    Object.assign(console, { log, error });
    if (gpu) useGpu(gpu);
  }
  return lines.join('\n');
}
