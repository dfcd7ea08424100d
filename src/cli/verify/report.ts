/** What happened to the cases, as lines for people and as JSON for programs. */
import type { Compared } from './compare.ts';

export interface Result {
  id: string;
  group: string;
  status: 'passed' | 'failed' | 'skipped';
  /** The check with the largest relative error. */
  worst?: Compared;
  /** Checks outside their tolerance. */
  failures: Compared[];
  /** Why it was skipped, or the error that stopped it. */
  reason?: string;
  milliseconds: number;
  /** Most bytes of GPU memory at a time, pooled ones included; 0 where no device was needed. */
  peakBytes: number;
}

export interface Count {
  passed: number;
  failed: number;
  skipped: number;
}

export function count(results: Result[]): Count {
  const of = (status: Result['status']) => results.filter((result) => result.status === status).length;
  return { passed: of('passed'), failed: of('failed'), skipped: of('skipped') };
}

/** One line: counts, the worst relative error and the case it is from. */
export function groupLine(group: string, results: Result[]): string {
  const { passed, failed, skipped } = count(results);
  const worst = worstOf(results);
  const error = worst
    ? `   worst ${scientific(worst.worst!.error)} (${worst.id} ${worst.worst!.name}, ` +
      `limit ${scientific(worst.worst!.tolerance)})`
    : '';
  return (
    `${group.padEnd(9)}${passed.toString().padStart(4)} passed ${failed.toString().padStart(4)} failed ` +
    `${skipped.toString().padStart(4)} skipped${error}`
  );
}

/** Failures, one line per check; reasons for skipping with how often; the total. */
export function summaryLines(results: Result[], verbose: boolean): string[] {
  const lines: string[] = [];
  for (const { id, status, reason, failures } of results) {
    if (status !== 'failed') continue;
    if (reason) lines.push(`failed: ${id}: ${reason}`);
    for (const { name, error, tolerance, at, got, want } of failures) {
      lines.push(
        `failed: ${id} ${name}: relative error ${scientific(error)} > ${scientific(tolerance)}` +
          (at >= 0 ? `, element ${at} is ${got}, want ${want}` : ''),
      );
    }
  }
  const skipped = new Map<string, string[]>();
  for (const { id, status, reason = '' } of results) {
    if (status === 'skipped') skipped.set(reason, [...(skipped.get(reason) ?? []), id]);
  }
  for (const [reason, ids] of skipped) {
    if (verbose) lines.push(...ids.map((id) => `skipped: ${id}: ${reason}`));
    else lines.push(`skipped: ${ids.length} × ${reason}`);
  }
  const { passed, failed, skipped: left } = count(results);
  return [...lines, `${passed} passed, ${failed} failed, ${left} skipped`];
}

/** The same for programs. */
export function toJson(head: Record<string, unknown>, results: Result[]): string {
  const groups = [...new Set(results.map((result) => result.group))].map((group) => {
    const own = results.filter((result) => result.group === group),
      worst = worstOf(own);
    return { group, ...count(own), worst: worst && { id: worst.id, ...finite(worst.worst!) } };
  });
  const cases = results.map(({ worst, failures, ...result }) => ({
    ...result,
    worst: worst && finite(worst),
    failures: failures.map(finite),
  }));
  return JSON.stringify({ format: 'rectiflow-verify-1', ...head, ...count(results), groups, cases }, null, 2);
}

function worstOf(results: Result[]): Result | undefined {
  return results
    .filter((result) => result.worst)
    .reduce<Result | undefined>((a, b) => (!a || b.worst!.error > a.worst!.error ? b : a), undefined);
}

/** JSON has no infinity: those become texts. */
function finite(check: Compared): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(check).map(([key, value]) => [
      key,
      typeof value === 'number' && !Number.isFinite(value) ? String(value) : value,
    ]),
  );
}

const scientific = (x: number) => (x === 0 ? '0' : Number.isFinite(x) ? x.toExponential(1) : String(x));
