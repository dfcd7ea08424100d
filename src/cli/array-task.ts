/** Which of several workers this is: by flags, or by what Slurm and Kubernetes tell the tasks of an array. */
import { UsageError } from './command.ts';

/** Worker `index` of `count`. @throws UsageError when the flags or the variables do not say both */
export function arrayTask(
  flags: { shard_index?: number; num_shards?: number },
  env: Record<string, string | undefined> = process.env,
): { index: number; count: number } {
  const told = fromEnvironment(env);
  const index = flags.shard_index ?? told?.index;
  const count = flags.num_shards ?? told?.count;
  if (index === undefined && count === undefined) return { index: 0, count: 1 };
  if (index === undefined)
    throw new UsageError(`--num_shards ${count}, and which of them is this?\n  give --shard_index, 0 to ${count! - 1}`);
  if (count === undefined)
    throw new UsageError(
      flags.shard_index === undefined
        ? `Kubernetes says which pod this is (JOB_COMPLETION_INDEX ${index}), and not of how many\n  give --num_shards, the completions of the Job`
        : `--shard_index ${index}, and of how many?\n  give --num_shards`,
    );
  if (index < count) return { index, count };
  throw new UsageError(
    `shard ${index} of ${count}: they are counted from 0\n  --shard_index  ${index}\n  --num_shards   ${count}`,
  );
}

function fromEnvironment(env: Record<string, string | undefined>): { index: number; count?: number } | undefined {
  const number = (name: string): number | undefined => {
    const word = env[name];
    if (word === undefined || word === '') return undefined;
    if (/^\d+$/.test(word)) return Number(word);
    throw new UsageError(`${name} is ${word}, must be a whole number\n  or give --shard_index and --num_shards`);
  };
  const task = number('SLURM_ARRAY_TASK_ID');
  if (task === undefined) {
    const index = number('JOB_COMPLETION_INDEX');
    return index === undefined ? undefined : { index };
  }
  const count = number('SLURM_ARRAY_TASK_COUNT') ?? 1;
  const index = (task - (number('SLURM_ARRAY_TASK_MIN') ?? 0)) / (number('SLURM_ARRAY_TASK_STEP') ?? 1);
  if (Number.isInteger(index) && index >= 0 && index < count) return { index, count };
  throw new UsageError(
    `Slurm's array has gaps: task ${task} of ${count}, from ${env.SLURM_ARRAY_TASK_MIN ?? 0} on\n  give --array=0-${count - 1}, or --shard_index and --num_shards`,
  );
}
