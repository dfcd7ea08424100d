import { join } from 'node:path';
import { DeviceLostError } from '../../kernels/index.ts';
import { currentGpu, init } from '../../tensor/index.ts';
import { Interrupted, runRecipe } from '../../flow/recipe/stages.ts';
import type { RunHooks } from '../../flow/recipe/run.ts';
import type { Progress } from '../../flow/trainer.ts';
import { arrayTask } from '../array-task.ts';
import { artist } from '../artist.ts';
import { command } from '../command.ts';
import { keepGoing } from '../keep-going.ts';
import { modelPath } from '../model-path.ts';
import { clock, StatusLine } from '../status-line.ts';
import { contradictions, trainFlags } from '../train-flags.ts';
import { recipeOf } from '../train-recipe.ts';

export default command(
  'train',
  'teacher → pairs → reflow → distill, on OpenMoji or on your own images; resumes what is unfinished',
  trainFlags,
  async (options) => {
    const worker = options.stage === 'pairs' ? arrayTask(options) : undefined;
    const begunWith = options.pretrained_model_name_or_path;
    const pretrained = begunWith && (await modelPath(begunWith));
    const recipe = await recipeOf({ ...options, pretrained_model_name_or_path: pretrained });
    await init();
    const stopping = new AbortController();
    const stop = (signal: NodeJS.Signals) => {
      if (stopping.signal.aborted) process.exit(130);
      console.error(`\n${signal}: finishing this step and saving; again to quit at once`);
      stopping.abort(signal);
    };
    process.on('SIGINT', stop);
    process.on('SIGTERM', stop);
    const line = new StatusLine();
    try {
      const hooks: RunHooks = {
        say: (words) => line.print(words),
        progress: (progress) => line.update(describeProgress(progress), progress.step === progress.steps),
        artist,
        signal: stopping.signal,
        pictureMinutes: options.picture_minutes,
        validationSteps: options.validation_steps,
        validationPrompts: options.validation_prompts,
        cacheFolder: options.cache_dir,
        dataWorkers: options.dataloader_num_workers,
        pretrained,
        resumeFrom: options.resume_from_checkpoint,
        force: options.force,
        worker,
        reportTo: options.report_to,
        loggingDir: options.logging_dir,
      };
      const work = () => runRecipe(options.output_dir, recipe, hooks, options.stage);
      const reopen = () => {
        hooks.resumeFrom = 'latest'; // what was asked for has been resumed
        return init();
      };
      await keepGoing(work, reopen, (words) => line.print(words));
      line.print(
        `the model is in ${join(options.output_dir, 'model')}; try: rectiflow sample "red apple" --model ${join(options.output_dir, 'model')}`,
      );
    } catch (error) {
      const lost = error instanceof DeviceLostError;
      if (!lost && !(error instanceof Interrupted)) throw error;
      const reason = lost ? `the GPU device was lost (${error.reason})\n  ${error.details}` : error.message;
      line.print(
        `${reason}\nto go on: rectiflow train --output_dir ${options.output_dir}${options.stage ? ` --stage ${options.stage}` : ''}`,
      );
      process.exitCode = lost ? 1 : 130;
    } finally {
      process.off('SIGINT', stop);
      process.off('SIGTERM', stop);
      currentGpu().destroy();
    }
  },
  contradictions,
);

function describeProgress({ task, step, steps, loss, lr, stepsPerSecond, imagesPerSecond, eta, gradNorm }: Progress) {
  return (
    `${task} ${step}/${steps}  loss ${loss.toFixed(4)}  |g| ${gradNorm.toFixed(2)}  lr ${lr.toExponential(1)}  ` +
    `${stepsPerSecond.toFixed(2)} steps/s  ${imagesPerSecond.toFixed(0)} images/s  ${clock(eta)} left`
  );
}
