/** Training cannot go on: numbers that are none, or a checkpoint or setting that does not fit. */
export class TrainingError extends Error {
  override name = 'TrainingError';
}
