/** A whole run: the ceilings, then every part that is wanted, as data that can be kept. */
import { currentGpu } from '../src/tensor/index.ts';
import { bareRow, besideBare } from './bare.ts';
import type { BesideBare } from './bare.ts';
import { commit, processors, withForeignShare } from './machine.ts';
import { measure, row } from './measure.ts';
import type { Budget, Line, Result } from './measure.ts';
import { benchModel, opRows, stageRow } from './model.ts';
import type { ModelOptions, StageTime } from './model.ts';
import { measureOverhead } from './overhead.ts';
import type { Overhead } from './overhead.ts';
import { measurePeak } from './peak.ts';
import type { Peak } from './peak.ts';
import { measureStep, STEPS, stepText } from './step.ts';
import type { Step } from './step.ts';
import { soak, soakRow } from './soak.ts';
import type { Soak } from './soak.ts';
import { PARTS } from './suite.ts';

export interface Report {
  adapter: string;
  processors: string;
  node: string;
  commit: string;
  /** Share of the processors that other processes used, 0 … 1, where it can be known. */
  foreignShare?: number;
  peak: Peak;
  parts: Record<string, Result[]>;
  bare?: BesideBare[];
  overhead?: Overhead[];
  model?: StageTime[];
  soak?: Soak[];
  steps?: Step[];
}

export const ALL_PARTS = [...Object.keys(PARTS), 'bare', 'overhead', 'model', 'soak'];
/** What runs only when it is named: minutes, and gigabytes. */
export const LARGE_PARTS = Object.keys(STEPS);

export interface Options extends Budget {
  parts: readonly string[];
  soakSteps: number;
  model: Omit<ModelOptions, 'print'>;
  print?(text: string): void;
}

export async function bench({ parts, soakSteps, model, print = console.log, ...budget }: Options): Promise<Report> {
  const about = { adapter: currentGpu().capabilities.name, processors, node: process.versions.node, commit };
  print(headOf(about));
  const [report, foreignShare] = await withForeignShare(async (): Promise<Report> => {
    const peak = await measurePeak(budget.seconds);
    print(peakRow(peak));
    const report: Report = { ...about, peak, parts: {} };
    for (const [name, lines] of Object.entries(PARTS)) {
      if (!parts.includes(name)) continue;
      print(`\n${name}`);
      report.parts[name] = await measure(lines(), peak, budget, print);
    }
    if (parts.includes('bare')) {
      print('\nbare');
      const fits = ({ flop = 0 }: Line) => flop / peak.gflops / 1e6 <= budget.longest;
      report.bare = await besideBare([...PARTS.matmul(), ...PARTS.conv()].filter(fits), print);
    }
    if (parts.includes('overhead')) {
      print('\noverhead');
      report.overhead = await measureOverhead(budget.seconds, print);
    }
    if (parts.includes('model')) {
      print('\nmodel');
      report.model = await benchModel({ ...model, print });
    }
    if (parts.includes('soak')) {
      print('\nsoak');
      report.soak = await soak(soakSteps, print);
    }
    for (const name of LARGE_PARTS.filter((part) => parts.includes(part))) {
      print(`\n${name}`);
      (report.steps ??= []).push(await measureStep(name, {}, print));
    }
    return report;
  });
  return { ...report, foreignShare };
}

export function textOf({ peak, parts, bare, overhead, model, soak, steps, foreignShare, ...about }: Report): string {
  const noise =
    foreignShare === undefined ? '' : `others used ${(100 * foreignShare).toFixed(0)} % of the processors\n`;
  return [
    headOf(about),
    noise + peakRow(peak),
    ...Object.entries(parts).map(([name, results]) => `\n${name}\n${results.map(row).join('\n')}`),
    ...(bare?.length ? [`\nbare\n${bare.map(bareRow).join('\n')}`] : []),
    ...(overhead
      ? [
          `\noverhead\n${overhead.map(({ name, value, unit }) => `${name.padEnd(62)} ${value.toFixed(1).padStart(8)} ${unit}`).join('\n')}`,
        ]
      : []),
    ...(model ? [`\nmodel\n${model.flatMap((stage) => [stageRow(stage), ...opRows(stage.ops)]).join('\n')}`] : []),
    ...(soak ? [`\nsoak\n${soak.map(soakRow).join('\n')}`] : []),
    ...(steps ?? []).map((step) => `\n${stepText(step)}`),
    '',
  ].join('\n');
}

const headOf = ({ adapter, processors, node, commit }: Pick<Report, 'adapter' | 'processors' | 'node' | 'commit'>) =>
  `${adapter}\n${processors}, Node ${node}, commit ${commit}`;

const peakRow = ({ gflops, gbs, registerGflops }: Peak) =>
  `100 % is the best matmul, ${gflops.toFixed(1)} GFLOP/s, and a copy, ${gbs.toFixed(1)} GB/s` +
  ` (multiply-adds on registers: ${registerGflops.toFixed(0)} GFLOP/s)`;
