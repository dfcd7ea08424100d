import { writeAtomic } from '../../tensor/io/files-node.ts';
import { choice, command, flag, positional, required, text, UsageError } from '../command.ts';
import { Golden, type GoldenCase } from '../verify/golden.ts';
import { groupLine, summaryLines, toJson, type Result } from '../verify/report.ts';
import { verify } from '../verify/verify.ts';

export default command(
  'verify',
  "run golden cases of other people's numbers against the engine",
  {
    folder: positional(text(required, 'folder with MANIFEST.json (format oracle-1)')),
    group: text(undefined, 'only these groups, comma-separated: op,optim'),
    filter: text(undefined, 'only cases whose group/name matches this regular expression'),
    dtype: choice('f32', ['f32', 'f16'], 'f16: the networks of group full in half precision, weights and activations'),
    json: text(undefined, 'write the results as JSON to this file, or to standard output with -'),
    verbose: flag(false, 'list every skipped case, and how long each case took'),
  },
  async ({ folder, group, filter, dtype, json, verbose }) => {
    const golden = await Golden.open(folder);
    const cases = choose(golden.cases, group, filter);
    const print = json === '-' ? console.error : console.log;

    const pending = new Map<string, Result[]>();
    const done = (result: Result) => {
      const own = [...(pending.get(result.group) ?? []), result];
      pending.set(result.group, own);
      if (verbose) print(`  ${result.id}: ${result.status}, ${result.milliseconds} ms`);
      if (own.length === cases.filter((c) => c.group === result.group).length) print(groupLine(result.group, own));
    };
    const { results, context } = await verify(golden, cases, done, dtype);
    if (json) {
      const { maxRSS, userCPUTime, systemCPUTime } = process.resourceUsage();
      const adapter = (await context.device?.catch(() => undefined))?.adapter.info;
      const head = {
        folder,
        set: golden.set,
        dtype,
        processorSeconds: (userCPUTime + systemCPUTime) / 1e6,
        maxResidentBytes: 1024 * maxRSS,
        adapter: adapter && `${adapter.vendor} ${adapter.architecture} ${adapter.description}`.trim(),
      };
      const text = toJson(head, results);
      if (json === '-') console.log(text);
      else await writeAtomic(json, `${text}\n`);
    }
    for (const line of summaryLines(results, verbose)) print(line);
    if (results.some((result) => result.status === 'failed')) process.exitCode = 1;
  },
);

/** The cases asked for, group by group. */
function choose(all: GoldenCase[], group?: string, filter?: string): GoldenCase[] {
  const known = [...new Set(all.map((c) => c.group))];
  const wanted = group?.split(',').map((name) => name.trim()) ?? known;
  for (const name of wanted) {
    if (!known.includes(name)) throw new UsageError(`no group ${name} in this folder; there are ${known.join(', ')}`);
  }
  let expression: RegExp;
  try {
    expression = new RegExp(filter ?? '');
  } catch (error) {
    throw new UsageError(`--filter is not a regular expression (${(error as Error).message})`);
  }
  const chosen = wanted.flatMap((name) => all.filter((c) => c.group === name && expression.test(c.id)));
  if (chosen.length === 0) throw new UsageError('no case matches --group and --filter');
  return chosen;
}
