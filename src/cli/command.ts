/**
 * A command is a name, a line of help, its options and what to do with them. Types, defaults, checks and `--help` all
 * follow from the options:
 *
 *     export default command('sample', 'one image from one prompt', {
 *       prompt: positional(text('a lighthouse at dusk', 'what to paint')),
 *       steps: int(1, 'Euler steps', { min: 1 }),
 *     }, async ({ prompt, steps }) => { … });
 *
 * `--guidance_scale` and `--guidance-scale` are the same flag, `--flag` and `--no-flag` set a flag, `--steps=4` works.
 */
import { parseArgs } from 'node:util';
import { z } from 'zod';
import { nearest } from '../nn/nearest.ts';

/** How one option is read: its schema turns the words of the command line into a value. */
export interface Option<T> {
  kind: 'text' | 'int' | 'float' | 'flag' | 'choice';
  help: string;
  schema: z.ZodType<T>;
  /** Undefined when the option may be absent, `required` when it may not. */
  default: T | undefined;
  required: boolean;
  /** Given as a bare word, not as --name. */
  positional: boolean;
  /** May be given more than once; its value is then a list. */
  repeated: boolean;
  /** Takes all bare words that follow it: `--validation_prompts "red apple" "blue heart"`. */
  greedy: boolean;
  choices?: readonly string[];
}

export type Options = Record<string, Option<any>>;
export type Values<O extends Options> = { [K in keyof O]: O[K] extends Option<infer T> ? T : never };

export interface Command {
  name: string;
  help: string;
  options: Options;
  run(values: any): Promise<void> | void;
  /** What is wrong with options that are each right by themselves. */
  check?(values: any): string[];
}

/** What the user typed is wrong: shown with a pointer to --help, exit status 2. */
export class UsageError extends Error {
  override name = 'UsageError';
}

/** The user stopped it: exit status 130. */
export class Stopped extends Error {
  override name = 'Stopped';
}

/** Required: an option made with `required` has no default. */
export const required: unique symbol = Symbol('required');
type Default<T> = T | undefined | typeof required;

interface Range {
  min?: number;
  max?: number;
}

/** Any text: `text('out.png', 'PNG file to write')`, or `text(required, …)`, or `text(undefined, …)` for "may be absent". */
export function text(value: string | typeof required, help: string): Option<string>;
export function text(value: undefined, help: string): Option<string | undefined>;
export function text(value: Default<string>, help: string): Option<any> {
  return option('text', value, help, z.string().min(1, 'must not be empty'));
}

/** A whole number, with an optional range. */
export function int(value: number | typeof required, help: string, range?: Range): Option<number>;
export function int(value: undefined, help: string, range?: Range): Option<number | undefined>;
export function int(value: Default<number>, help: string, range: Range = {}): Option<any> {
  return option('int', value, help, number(z.number().int('must be a whole number'), range));
}

/** A number, with an optional range. */
export function float(value: number | typeof required, help: string, range?: Range): Option<number>;
export function float(value: undefined, help: string, range?: Range): Option<number | undefined>;
export function float(value: Default<number>, help: string, range: Range = {}): Option<any> {
  return option('float', value, help, number(z.number(), range));
}

/** On or off: `--json`, `--no-json`. */
export function flag(value: boolean, help: string): Option<boolean>;
export function flag(value: undefined, help: string): Option<boolean | undefined>;
export function flag(value: boolean | undefined, help: string): Option<any> {
  return option('flag', value, help, z.boolean());
}

/** One of a few words. */
export function choice<const C extends string>(
  value: NoInfer<C> | typeof required,
  choices: readonly C[],
  help: string,
): Option<C>;
export function choice<const C extends string>(
  value: undefined,
  choices: readonly C[],
  help: string,
): Option<C | undefined>;
export function choice(value: Default<string>, choices: readonly string[], help: string): Option<any> {
  const schema = z.string().refine((word) => choices.includes(word), { error: `must be one of ${choices.join(', ')}` });
  return { ...option('choice', value, help, schema), choices };
}

/** The option is given as a bare word: `sample "red apple"`. It can be given as `--prompt "red apple"` too. */
export function positional<T>(option: Option<T>): Option<T> {
  return { ...option, positional: true };
}

/** The option may be given several times; its value is a list. A repeated positional takes all remaining words. */
export function repeated<T>(option: Option<T>): Option<Exclude<T, undefined>[]> {
  const value = option.default === undefined ? (option.required ? undefined : []) : [option.default];
  return { ...option, repeated: true, default: value, schema: z.array(option.schema) } as Option<any>;
}

/** The option takes all bare words that follow it, as Python's `nargs="+"`; its value is a list. */
export function greedy<T>(option: Option<T>): Option<Exclude<T, undefined>[]> {
  return { ...repeated(option), greedy: true };
}

/** Make a command out of its options and what it does with their values. `check` names what does not go together. */
export function command<O extends Options>(
  name: string,
  help: string,
  options: O,
  run: (values: Values<O>) => Promise<void> | void,
  check?: (values: Partial<Values<O>>) => string[],
): Command {
  return { name, help, options, run: run as Command['run'], check: check as Command['check'] };
}

/** Run a command on the words after its name. `--help` prints the help instead. */
export async function runCommand(command: Command, argv: string[]): Promise<void> {
  const values = parse(command, argv);
  if (values === 'help') console.log(helpFor(command));
  else await command.run(values);
}

/** Read the words after a command's name into the values of its options. @throws UsageError with all that is wrong */
export function parse(command: Command, argv: string[]): Record<string, unknown> | 'help' {
  const { options } = command;
  const names = new Map(Object.keys(options).map((name) => [canonical(name), name]));
  const { tokens } = parseArgs({
    args: mergeNegatives(argv),
    strict: false,
    allowPositionals: true,
    tokens: true,
    options: Object.fromEntries(
      [...names].flatMap(([flagName, name]) => {
        const type = options[name].kind === 'flag' ? ('boolean' as const) : ('string' as const);
        return spellings(flagName).map((spelling) => [spelling, { type }]);
      }),
    ),
  });
  const problems: string[] = [];
  const attempt = <T>(read: () => T): T | undefined => {
    try {
      return read();
    } catch (error) {
      if (!(error instanceof UsageError)) throw error;
      problems.push(error.message);
    }
  };
  const given: Record<string, unknown[]> = {};
  const bare: string[] = [];
  let follow = bare; // where the next bare words go
  for (const token of tokens) {
    if (token.kind === 'positional') follow.push(token.value);
    if (token.kind !== 'option') continue;
    if (token.name === 'help' || token.rawName === '-h') return 'help';
    const key = canonical(token.name);
    const plain = key.replace(/^no-/, '');
    const isNegated = !names.has(key) && names.has(plain) && options[names.get(plain)!].kind === 'flag';
    const name = names.get(isNegated ? plain : key);
    if (name === undefined) problems.push(unknown('flag', token.rawName, [...names.values()].map(dashed)));
    else {
      const value = attempt(() => valueOf(token, options[name]) ?? !isNegated);
      if (value !== undefined) (given[name] ??= []).push(value);
    }
    // Words after an unknown flag are its value, not one more mistake.
    follow = name === undefined ? [] : options[name].greedy ? ((given[name] ??= []) as string[]) : bare;
  }
  attempt(() => takePositionals(options, bare, given));
  const values = Object.fromEntries(
    Object.keys(options).map((name) => [name, attempt(() => read(name, options[name], given[name]))]),
  );
  problems.push(...(command.check?.(values) ?? []));
  if (problems.length) throw new UsageError(problems.join('\n'));
  return values;
}

/** The text of `--help`. */
export function helpFor({ name, help, options }: Command): string {
  const positionals = Object.keys(options).filter((key) => options[key].positional);
  const usage = positionals.map((key) => {
    const { required, repeated } = options[key];
    return required ? `<${key}${repeated ? '…' : ''}>` : `[${key}${repeated ? '…' : ''}]`;
  });
  const rows = Object.entries(options).map(([key, option]) => [heading(key, option), describe(option)]);
  rows.push(['--help', 'show this']);
  const width = Math.max(...rows.map(([left]) => left.length));
  return [
    `rectiflow ${[name, ...usage, '[options]'].join(' ')}`,
    `  ${help}`,
    '',
    ...rows.map(([left, right]) => `  ${left.padEnd(width)}  ${right}`),
  ].join('\n');
}

/** "unknown flag --stpes; did you mean --steps?" */
export function unknown(what: string, word: string, known: string[]): string {
  const near = nearest(word, known, (text) => text.replace(/^-+/, '').replaceAll('_', '-').toLowerCase());
  return `unknown ${what} ${word}${near ? `; did you mean ${near}?` : ''}`;
}

function option(kind: Option<any>['kind'], value: Default<any>, help: string, schema: z.ZodType<any>): Option<any> {
  const isRequired = value === required;
  return {
    kind,
    help,
    schema,
    default: isRequired ? undefined : value,
    required: isRequired,
    positional: false,
    repeated: false,
    greedy: false,
  };
}

function number(schema: z.ZodNumber, { min, max }: Range) {
  let bounded = schema;
  if (min !== undefined) bounded = bounded.min(min, `must be at least ${min}`);
  if (max !== undefined) bounded = bounded.max(max, `must be at most ${max}`);
  const parsed = z
    .string()
    .regex(/^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i, 'must be a number')
    .transform(Number);
  return parsed.pipe(bounded);
}

/** The word given to an option; undefined for a flag, which takes none. */
function valueOf(
  token: { rawName: string; value?: string; inlineValue?: boolean },
  option: Option<any>,
): string | undefined {
  const { rawName, value, inlineValue } = token;
  if (option.kind === 'flag') {
    if (value === undefined) return undefined;
    throw new UsageError(`${rawName} takes no value (${value}); use ${rawName} or --no-${rawName.slice(2)}`);
  }
  if (value === undefined || (!inlineValue && value.startsWith('--'))) {
    throw new UsageError(`${rawName} needs a value\n  ${describe(option)}`);
  }
  return value;
}

/** Hand the bare words to the positional options, in the order they were declared. */
function takePositionals(options: Options, bare: string[], given: Record<string, unknown[]>): void {
  const rest = [...bare];
  for (const [name, option] of Object.entries(options)) {
    if (!option.positional || rest.length === 0 || given[name]) continue;
    given[name] = option.repeated ? rest.splice(0) : [rest.shift()];
  }
  if (rest.length > 0)
    throw new UsageError(
      `unexpected ${rest.map((word) => `"${word}"`).join(' ')}; put a text of several words in quotes`,
    );
}

/** One option's value: the default when it was not given, else what its schema makes of it. */
function read(name: string, option: Option<any>, given: unknown[] | undefined): unknown {
  if (given === undefined) {
    if (option.required) throw new UsageError(option.positional ? `<${name}> is missing` : `--${name} is missing`);
    return option.default;
  }
  const result = option.schema.safeParse(option.repeated ? given : given.at(-1));
  if (result.success) return result.data;
  const shown = option.positional ? name : `--${name}`;
  const word = given.length > 1 ? given.join(' ') : String(given[0]);
  throw new UsageError(`${shown} ${result.error.issues[0].message}${word === '' ? '' : `, not "${word}"`}`);
}

const dashed = (name: string) => `--${name}`;
const canonical = (name: string) => name.replaceAll('_', '-');
const spellings = (name: string) => [name, name.replaceAll('-', '_')];

function heading(name: string, { kind, positional, choices, greedy }: Option<any>): string {
  if (positional) return name;
  if (kind === 'flag') return `--${name}`;
  return `--${name} <${choices ? choices.join('|') : kind}${greedy ? '…' : ''}>`;
}

function describe({ help, default: value, repeated, greedy, required }: Option<any>): string {
  const notes = [];
  if (required) notes.push('required');
  else if (value !== undefined && value !== false && !(Array.isArray(value) && value.length === 0))
    notes.push(`default: ${value}`);
  if (repeated && !greedy) notes.push('repeatable');
  return notes.length ? `${help} (${notes.join(', ')})` : help;
}

/** parseArgs takes "--scale -1" for a flag without a value: join the two. */
function mergeNegatives(words: string[]): string[] {
  const merged: string[] = [];
  for (const word of words) {
    const last = merged.at(-1);
    if (/^-[\d.]/.test(word) && last?.startsWith('--') && !last.includes('='))
      merged[merged.length - 1] = `${last}=${word}`;
    else merged.push(word);
  }
  return merged;
}
