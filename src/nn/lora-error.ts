/** A file of a LoRA that cannot be used, or not with these networks. */
export class LoraError extends Error {
  override name = 'LoraError';
}

/** `what: line` for the first dozen lines, and how many more there are. */
export function listed(what: string, lines: readonly string[]): string[] {
  const shown = lines.slice(0, 12).map((line) => `  ${what}: ${line}`);
  return lines.length > 12 ? [...shown, `  … and ${lines.length - 12} more ${what}`] : shown;
}
