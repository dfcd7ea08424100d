import type { Test } from 'uvu';

/** Declare a test that cannot run here, and say why. The runner lists these at the end. */
export function skip(test: Test, name: string, reason: string): void {
  console.log(`  skipped: ${name}: ${reason}`);
  test.skip(name);
}
