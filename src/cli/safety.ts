/** --safety_checker: whether the model's own looks at the pictures before they are written. */
import { safetyCheckerIn } from '../flow/recipe/safety-checker.ts';
import { choice } from './command.ts';

export const safetyOption = choice(
  'auto',
  ['auto', 'on', 'off'],
  "blacken what the model's safety checker flags; auto: when its weights are there",
);

/** Whether it is to look, which is said in a line, or why it does not though the model has one. */
export async function wantsSafetyChecker(path: string, asked: 'auto' | 'on' | 'off'): Promise<boolean> {
  const there = asked === 'auto' ? await safetyCheckerIn(path) : undefined;
  if (there === 'listed')
    console.error(
      'safety checker: off, its weights are not here (of a model on the hub, --safety_checker on fetches them)',
    );
  const on = asked === 'on' || there === 'weights';
  if (on) console.error('safety checker: on, what it flags becomes black (--safety_checker off)');
  return on;
}
