/** The report of a training run: one HTML file that asks nothing of the network. */
import type { RunReport, Session, StageReport } from '../../flow/recipe/run-report.ts';
import type { Metrics } from '../../flow/recipe/stage-evaluate.ts';
import type { LoggedStep } from '../../flow/recipe/training-log.ts';
import { escapeXml } from '../pictures/text.ts';
import * as show from '../units.ts';
import { chart } from './chart.ts';
import { hover } from './hover.ts';
import { style } from './style.ts';

/** Steps whose values can be read under the pointer. */
const READABLE = 1500;

export function reportPage({ recipe, written, sessions, stages, metrics }: RunReport): string {
  const begun = stages.filter(({ log, sheet, done }) => log.length || sheet || done);
  const now = [...begun].reverse().find(({ done }) => !done);
  const last = now?.log.at(-1);
  const state = now
    ? `${now.name}: ${last ? `step ${last.step} of ${now.steps}` : 'begun'}`
    : begun.length === stages.length
      ? 'finished'
      : `${begun.at(-1)?.name ?? 'nothing'} finished`;
  const title = `rectiflow train · ${recipe.name}`;
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>${escapeXml(title)}</title>
<style>${style}</style>
<h1>${escapeXml(title)}</h1>
<p>${escapeXml(state)} <span class="muted">· written ${time(written)}</span></p>
<nav>${[...begun.map(({ name }) => name), 'sessions', 'recipe'].map((name) => `<a href="#${name}">${name}</a>`).join('')}</nav>
${begun.map((stage) => stageSection(stage, metrics)).join('\n')}
<h2 id="sessions">Sessions</h2>
${sessionTable(sessions)}
<h2 id="recipe">Recipe</h2>
<details><summary>every number, as in recipe.json</summary><pre>${escapeXml(JSON.stringify(recipe, undefined, 2))}</pre></details>
<script>(${hover})()</script>
</html>
`;
}

function stageSection({ name, log, steps, sheet, done }: StageReport, metrics: Metrics | undefined): string {
  const every = Math.ceil(log.length / READABLE);
  const readable = log.filter((_, i) => i % every === 0 || i === log.length - 1);
  const pick = (key: keyof LoggedStep, scale = 1) => readable.map((line) => scaled(line[key], scale));
  const memory = memoryUnit(log);
  const values = {
    step: readable.map(({ step }) => step),
    loss: pick('loss'),
    lr: pick('lr'),
    gradNorm: pick('gradNorm'),
    imagesPerSecond: pick('imagesPerSecond'),
    memoryLive: pick('memoryLive', memory.bytes),
    memoryPeak: pick('memoryPeak', memory.bytes),
  };
  const attribute = log.length ? ` data-values="${escapeXml(JSON.stringify(values))}"` : '';
  return `<section${attribute}>
<h2 id="${name}">${name}</h2>
<p class="muted">${escapeXml(stageLine({ name, log, steps, done }))}</p>
${log.length ? `<div class="charts">${charts(log, memory)}</div>` : ''}
${name === 'evaluate' && metrics ? metricsTable(metrics) : ''}
${sheet ? `<div class="sheet"><img alt="samples of ${name}" src="data:image/png;base64,${sheet.toString('base64')}"></div>` : ''}
</section>`;
}

function stageLine({ log, steps, done }: StageReport): string {
  const last = log.at(-1);
  const skipped = log.filter((line) => line.skipped).length;
  const words = [done ? 'finished' : 'going on'];
  if (last) {
    words.push(
      `step ${last.step} of ${steps}`,
      `${show.seconds(last.seconds)} of training`,
      `loss ${last.loss?.toPrecision(4)}`,
    );
    words.push(`peak memory ${show.bytes(Math.max(...log.map(({ memoryPeak = 0 }) => memoryPeak)))}`);
  }
  if (skipped) words.push(`${skipped} steps skipped for overflow`);
  return words.join(' · ');
}

function charts(log: LoggedStep[], memory: { unit: string; bytes: number }): string {
  const steps = log.map(({ step }) => step);
  const line = (key: keyof LoggedStep, name = '', scale = 1) => ({
    key,
    name,
    values: log.map((entry) => scaled(entry[key], scale)),
  });
  const { unit, bytes } = memory;
  const smoothing = Math.max(0, Math.min(0.98, 1 - 15 / log.length));
  return [
    chart({ title: 'loss', steps, lines: [line('loss')], logY: true, smoothing, isWide: true }),
    chart({ title: 'learning rate', steps, lines: [line('lr')] }),
    chart({ title: 'gradient norm', steps, lines: [line('gradNorm')], logY: true, smoothing }),
    chart({ title: 'images per second', steps, lines: [line('imagesPerSecond')] }),
    chart({
      title: `GPU memory, ${unit}`,
      steps,
      lines: [line('memoryLive', 'live', bytes), line('memoryPeak', 'peak', bytes)],
    }),
  ].join('\n');
}

/** A number of the log; JSON has null for those that are none. */
const scaled = (value: unknown, scale: number): number | null => (typeof value === 'number' ? value / scale : null);

function memoryUnit(log: LoggedStep[]): { unit: string; bytes: number } {
  const most = log.at(-1)?.memoryPeak ?? 0;
  return most >= 2 ** 30 ? { unit: 'GiB', bytes: 2 ** 30 } : { unit: 'MiB', bytes: 2 ** 20 };
}

function metricsTable({ rows, straightnessGain, frechetRatio, count }: Metrics): string {
  const head = [
    'network',
    'steps',
    'guidance',
    'Fréchet distance (small fixed features)',
    'caption accuracy',
    'S / cost',
    's / image',
  ];
  const body = rows.map((row) => [
    row.network,
    row.steps,
    row.guidanceScale,
    row.frechetDistance.toFixed(4),
    `${(100 * row.captionAccuracy).toFixed(1)} %`,
    row.straightness ? row.straightness.ratio.toPrecision(3) : '',
    row.secondsPerImage.toPrecision(3),
  ]);
  return `${table(head, body)}
<p class="muted">${count} images each, from the same prompts and noise. Straightness gain of reflow ${straightnessGain.toFixed(1)}; the distilled network has ${frechetRatio.toFixed(2)} times the teacher's Fréchet distance.</p>`;
}

function sessionTable(sessions: Session[]): string {
  const rows = sessions.map(({ started, adapter, cpu, cores, memory, platform, node }) => [
    time(started),
    adapter,
    `${cpu}, ${cores} threads`,
    show.bytes(memory),
    platform,
    `Node ${node}`,
  ]);
  return table(['begun', 'adapter', 'processor', 'memory', 'platform', ''], rows, 'words');
}

function table(head: string[], rows: (string | number)[][], kind = 'numbers'): string {
  const row = (cells: (string | number)[], tag: string) =>
    `<tr>${cells.map((cell) => `<${tag}>${escapeXml(String(cell))}</${tag}>`).join('')}</tr>`;
  return `<div class="table"><table class="${kind}">${row(head, 'th')}${rows.map((cells) => row(cells, 'td')).join('')}</table></div>`;
}

/** 2024-05-01 12:30 UTC */
const time = (iso: string): string => `${iso.slice(0, 16).replace('T', ' ')} UTC`;
