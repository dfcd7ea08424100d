/** What stays of a stage's training: a line a step as JSON, and the same for TensorBoard. */
import { appendFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { currentGpu } from '../../tensor/index.ts';
import { writeAtomic } from '../../tensor/io/files-node.ts';
import type { LogLine } from '../trainer.ts';
import { cannotWrite } from './checkpoints.ts';
import { EventFile } from './event-file.ts';

/** A step as the log holds it: with the bytes of GPU memory in use after it, and the most so far in this process. */
export interface LoggedStep extends LogLine {
  memoryLive: number;
  memoryPeak: number;
}

export interface TrainingLogOptions {
  /** The step that is gone on from: what was logged after it is dropped, as those steps come again. */
  upTo: number;
  /** Folder of the TensorBoard files; without it there are none. */
  events?: string;
  /** For TensorBoard's page of texts. */
  settings?: unknown;
}

export class TrainingLog {
  private constructor(
    readonly file: string,
    readonly steps: LoggedStep[],
    readonly events: EventFile | undefined,
  ) {}

  static async open(file: string, { upTo, events: folder, settings }: TrainingLogOptions): Promise<TrainingLog> {
    const text = await readFile(file, 'utf8').catch(() => '');
    const steps = parseLog(text).filter(({ step }) => step <= upTo);
    const kept = lines(steps);
    if (kept !== text) await writeAtomic(file, kept).catch((error) => Promise.reject(cannotWrite(error, file)));
    const events = folder === undefined ? undefined : await EventFile.open(folder, upTo);
    if (events?.isFirst) events.text(0, 'recipe', `\`\`\`json\n${JSON.stringify(settings, undefined, 2)}\n\`\`\``);
    return new TrainingLog(file, steps, events);
  }

  add(line: LogLine): void {
    const { live, peak } = currentGpu().memory();
    const logged: LoggedStep = { ...line, memoryLive: live, memoryPeak: peak };
    this.steps.push(logged);
    try {
      appendFileSync(this.file, lines([logged]));
    } catch (error) {
      throw cannotWrite(error, this.file);
    }
    const { step, loss, lr, gradNorm, imagesPerSecond } = line;
    this.events?.scalars(step, {
      train_loss: loss, // diffusers' scripts call it so, and `lr`
      lr,
      grad_norm: gradNorm,
      images_per_second: imagesPerSecond,
      'memory/live': live,
      'memory/peak': peak,
    });
  }

  /** A sheet of samples, as drawn after the last step. */
  sheet(png: Buffer): void {
    this.events?.image(this.steps.at(-1)?.step ?? 0, 'samples', png);
  }
}

const lines = (steps: LoggedStep[]): string => steps.map((step) => `${JSON.stringify(step)}\n`).join('');

/** The lines of a log file, without one that was cut short when the process died. */
export function parseLog(text: string): LoggedStep[] {
  return text.split('\n').flatMap((line) => {
    try {
      return [JSON.parse(line) as LoggedStep];
    } catch {
      return [];
    }
  });
}
