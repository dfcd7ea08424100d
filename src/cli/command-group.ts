/** A command that is several: `rectiflow pairs generate …`, `rectiflow pairs inspect …`. */
import { helpFor, runCommand, unknown, UsageError } from './command.ts';
import type { Command } from './command.ts';

export interface Group {
  name: string;
  help: string;
  commands: Record<string, Command>;
}

/** Run the command that the first word names. `--help` prints the help of all. */
export async function runGroup({ name, help, commands }: Group, [word, ...rest]: string[]): Promise<void> {
  const names = Object.keys(commands);
  if (word === '--help' || word === '-h') {
    const all = Object.values(commands).map(helpFor);
    console.log([`rectiflow ${name} <${names.join('|')}>\n  ${help}`, ...all].join('\n\n'));
  } else if (word === undefined || word.startsWith('-'))
    throw new UsageError(`${name}: say which: ${names.map((each) => `rectiflow ${name} ${each}`).join(', ')}`);
  else if (!Object.hasOwn(commands, word)) throw new UsageError(unknown('command', word, names));
  else await runCommand(commands[word], rest);
}
