import { spawnSync } from 'node:child_process';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import {
  choice,
  command,
  flag,
  float,
  greedy,
  helpFor,
  int,
  parse,
  positional,
  repeated,
  required,
  text,
} from '../src/cli/command.ts';

const paint = command(
  'paint',
  'paint something',
  {
    prompt: positional(repeated(text(required, 'what to paint'))),
    steps: int(1, 'Euler steps', { min: 1 }),
    guidance_scale: float(1.5, 'how closely to follow the prompt'),
    seed: int(undefined, 'seed of the noise'),
    solver: choice('euler', ['euler', 'heun'], 'how to follow the flow'),
    grid: flag(true, 'one sheet of all images'),
  },
  () => {},
);

/** `node cli …` in a process of its own. */
function cli(...argv: string[]) {
  const env = { ...process.env, RECTIFLOW_DEBUG: '' };
  const { status, stdout, stderr } = spawnSync(process.execPath, ['cli', ...argv], { encoding: 'utf8', env });
  return { status, stdout, stderr: stderr.replace('building…\n', '') };
}

const options = suite('command options');

options('have their defaults, and undefined where they may be absent', () => {
  const values = parse(paint, ['apple']);
  assert.equal(values, {
    prompt: ['apple'],
    steps: 1,
    guidance_scale: 1.5,
    seed: undefined,
    solver: 'euler',
    grid: true,
  });
});

options('are read as what they are', () => {
  const values = parse(paint, [
    'red apple',
    '--steps',
    '4',
    '--guidance-scale=-2.5e-1',
    'pear',
    '--seed',
    '-7',
    '--no-grid',
    '--solver',
    'heun',
  ]);
  assert.equal(values, {
    prompt: ['red apple', 'pear'],
    steps: 4,
    guidance_scale: -0.25,
    seed: -7,
    solver: 'heun',
    grid: false,
  });
});

options('may be spelt with a hyphen or an underscore', () => {
  assert.equal(parse(paint, ['x', '--guidance_scale', '2']), parse(paint, ['x', '--guidance-scale', '2']));
});

options('after -- are words', () => {
  assert.equal((parse(paint, ['--', '--steps']) as any).prompt, ['--steps']);
});

for (const [argv, message] of [
  [['x', '--stpes', '4'], 'unknown flag --stpes; did you mean --steps?'],
  [['x', '--zebra', '4'], 'unknown flag --zebra'],
  [['x', '--steps', '0'], '--steps must be at least 1, not "0"'],
  [['x', '--steps', '1.5'], '--steps must be a whole number, not "1.5"'],
  [['x', '--steps', 'many'], '--steps must be a number, not "many"'],
  [['x', '--solver', 'rk9'], '--solver must be one of euler, heun, not "rk9"'],
  [['x', '--grid=yes'], '--grid takes no value (yes); use --grid or --no-grid'],
  [
    ['x', '--stpes', '4', '--solver', 'rk9', '--steps', '0', '--grid=1'],
    'unknown flag --stpes; did you mean --steps?\n--grid takes no value (1); use --grid or --no-grid\n--steps must be at least 1, not "0"\n--solver must be one of euler, heun, not "rk9"',
  ],
  [['x', '--steps'], '--steps needs a value\n  Euler steps (default: 1)'],
  [['x', '--steps', '--grid'], '--steps needs a value\n  Euler steps (default: 1)'],
  [[], '<prompt> is missing'],
  [[''], 'prompt must not be empty'],
] as const) {
  options(`${JSON.stringify(argv)} is refused: ${message.split('\n')[0]}`, () => {
    assert.throws(
      () => parse(paint, [...argv]),
      (error: Error) => {
        assert.is(error.message, message);
        return true;
      },
    );
  });
}

options('a second bare word is refused when only one is expected', () => {
  const one = command('one', '', { prompt: positional(text('x', '')) }, () => {});
  assert.throws(() => parse(one, ['red', 'apple']), /unexpected "apple"; put a text of several words in quotes/);
});

options('that are greedy take the words up to the next flag', () => {
  const sheet = command(
    'sheet',
    '',
    { out: positional(text('a', '')), prompts: greedy(text(undefined, 'what')), cold: flag(undefined, '') },
    () => {},
    ({ prompts, cold }) => (cold && prompts?.length === 2 ? ['--cold is for one prompt'] : []),
  );
  const values = parse(sheet, ['b', '--prompts', 'red apple', 'pear', '--no-cold']);
  assert.equal(values, { out: 'b', prompts: ['red apple', 'pear'], cold: false });
  assert.equal(parse(sheet, ['--prompts', 'x', '--prompts=y', 'z']), {
    out: 'a',
    prompts: ['x', 'y', 'z'],
    cold: undefined,
  });
  assert.throws(
    () => parse(sheet, ['--prompts', 'x', 'y', '--cold', '--zebra']),
    /^unknown flag --zebra\n--cold is for one prompt$/,
  );
  assert.match(helpFor(sheet), /--prompts <text…> +what\n/);
});

options('make the help', () => {
  const help = helpFor(paint);
  assert.match(help, /^rectiflow paint <prompt…> \[options\]\n {2}paint something/);
  assert.match(help, /--steps <int> +Euler steps \(default: 1\)/);
  assert.match(help, /--solver <euler\|heun> +how to follow the flow \(default: euler\)/);
});

options.run();

const test = suite('node cli');

test('alone lists the commands', () => {
  const { status, stdout } = cli();
  assert.is(status, 0);
  for (const name of ['sample', 'download', 'train', 'pairs', 'convert', 'doctor', 'verify', 'demo', 'setup'])
    assert.match(stdout, new RegExp(`^  ${name} `, 'm'));
  assert.is(cli('--help').stdout, stdout);
});

test('--version is the version of package.json', () => assert.match(cli('--version').stdout, /^\d+\.\d+\.\d+\n$/));

test('an unknown command names the nearest one, with exit status 2', () => {
  const { status, stderr } = cli('smaple');
  assert.is(status, 2);
  assert.is(stderr, 'unknown command smaple; did you mean sample?\nsee: rectiflow --help\n');
});

test('an unknown flag names the nearest one, with exit status 2', () => {
  const { status, stderr } = cli('setup', '--chekc');
  assert.is(status, 2);
  assert.is(stderr, 'unknown flag --chekc; did you mean --check?\nsee: rectiflow setup --help\n');
});

test('a command that is several wants one of them', () => {
  for (const [words, message] of [
    [[], 'pairs: say which: rectiflow pairs generate, rectiflow pairs inspect\n'],
    [['genrate'], 'unknown command genrate; did you mean generate?\n'],
    [['inspect', 'x', '--steps', '3'], 'unknown flag --steps\n'],
  ] as const) {
    const { status, stderr } = cli('pairs', ...words);
    assert.is(status, 2);
    assert.is(stderr, `${message}see: rectiflow pairs --help\n`);
  }
});

test('every command has a help', () => {
  for (const name of ['sample', 'download', 'train', 'pairs', 'convert', 'doctor', 'verify', 'demo', 'setup']) {
    const { status, stdout, stderr } = cli(name, '--help');
    assert.is(status, 0, stderr);
    assert.match(stdout, new RegExp(`^rectiflow ${name} `));
  }
});

test('train names all flags that are unknown, wrong or contradictory at once, and does nothing', () => {
  const { status, stderr } = cli(
    ...['train', '--output_dir', '/nowhere/run', '--learnign_rate', '1', '--mixed_precision', 'bf16', '--rank', '4'],
    ...['--stage', 'vae', '--num_train_epochs', '2', '--max_train_steps', '5', '--no-use_ema', '--ema_decay', '0.9'],
    ...[
      '--lr_scheduler',
      'constant',
      '--lr_power',
      '2',
      '--train_batch_size',
      '0',
      '--center_crop',
      '--snr_gamma',
      '5',
      '--noise_offset',
      '0.1',
    ],
  );
  assert.is(status, 2);
  const lines = stderr.trim().split('\n');
  const want = [
    /^unknown flag --learnign_rate; did you mean --learning_rate\?$/,
    /^--train_batch_size must be at least 1, not "0"$/,
    /^--mixed_precision bf16: WGSL has no bfloat16/,
    /^--snr_gamma weighs steps of a noise schedule .* see --t_dist$/,
    /^--noise_offset and --stage vae: only the teacher/,
    /^--num_train_epochs and --max_train_steps/,
    /^--ema_decay and --no-use_ema/,
    /^--lr_power is for --lr_scheduler polynomial, not constant/,
    /^--rank and --stage vae/,
    /^--center_crop is for images of one's own: give --train_data_dir too/,
    /^see: rectiflow train --help$/,
  ];
  assert.is(lines.length, want.length, stderr);
  want.forEach((pattern, i) => assert.match(lines[i], pattern));
});

test.run();
