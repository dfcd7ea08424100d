/** The command line: find the command, import it, run it, and turn what goes wrong into a message and an exit status. */
import { version } from '../../package.json';
import { runCommand, Stopped, unknown, UsageError, type Command } from './command.ts';
import { runGroup, type Group } from './command-group.ts';

type Entry = [help: string, load: () => Promise<{ default: Command | Group }>];

/** Commands are imported only when asked for, so that `--help` is quick and a broken one leaves the others alone. */
const commands: Record<string, Entry> = {
  sample: ['text → image', () => import('./commands/sample.ts')],
  train: ['teacher → pairs → reflow → distill', () => import('./commands/train.ts')],
  pairs: ['what a teacher makes of noise: the data of reflow and distillation', () => import('./commands/pairs.ts')],
  download: ['fetch a model of the Hugging Face hub ahead of time', () => import('./commands/download.ts')],
  demo: ['sample the model that ships with rectiflow, with a side-by-side sheet', () => import('./commands/demo.ts')],
  compare: ['many steps beside one: the same noise through two models', () => import('./commands/compare.ts')],
  eval: ['how good a model is: straightness, few steps, Fréchet distance', () => import('./commands/eval.ts')],
  estimate: [
    'what a model takes: memory, arithmetic, time, and whether it fits',
    () => import('./commands/estimate.ts'),
  ],
  convert: ['models between layouts, formats and dtypes', () => import('./commands/convert.ts')],
  doctor: ['what the GPU adapter can do, and a self-test of the kernels', () => import('./commands/doctor.ts')],
  verify: ['run golden cases against the engine', () => import('./commands/verify.ts')],
  setup: ['find a GPU adapter, or install one', () => import('./commands/setup.ts')],
};

export async function main(argv: string[]): Promise<void> {
  const debug = argv.includes('--debug') || Boolean(Number(process.env.RECTIFLOW_DEBUG));
  const [name, ...rest] = argv.filter((word) => word !== '--debug');
  try {
    if (name === '--version' || name === '-v') console.log(version);
    else if (name === undefined || name === '--help' || name === '-h' || name === 'help') console.log(overview());
    else {
      if (!Object.hasOwn(commands, name)) throw new UsageError(unknown('command', name, Object.keys(commands)));
      const { default: command } = await commands[name][1]();
      await ('commands' in command ? runGroup(command, rest) : runCommand(command, rest));
    }
  } catch (error) {
    process.exitCode = error instanceof UsageError ? 2 : error instanceof Stopped ? 130 : 1;
    console.error(
      debug && error instanceof Error ? error.stack : error instanceof Error ? error.message : String(error),
    );
    if (error instanceof UsageError) {
      console.error(`see: rectiflow ${name && Object.hasOwn(commands, name) ? `${name} ` : ''}--help`);
    }
  }
}

function overview(): string {
  const width = Math.max(...Object.keys(commands).map((name) => name.length));
  return [
    `rectiflow ${version}: one-step text-to-image by rectified flow`,
    '',
    'rectiflow <command> [options]',
    ...Object.entries(commands).map(([name, [help]]) => `  ${name.padEnd(width)}  ${help}`),
    '',
    'rectiflow <command> --help   the options of a command',
    'rectiflow --version          the version',
    '--debug or RECTIFLOW_DEBUG=1 errors with their stack',
  ].join('\n');
}

await main(process.argv.slice(2));
