/** One-line functions of one V that mix its lanes. */
const ACROSS = /^(fn \w+\(v: V\) -> (?:f32|V) \{).*\}$/gm;
const narrowed = new Map<string, string>();

/**
 * The same kernel with one number where it had four: `alias V = f32`, and functions across the lanes do nothing.
 * For rows whose width is no multiple of 4, so that they begin at any address.
 */
export function narrow(code: string): string {
  let text = narrowed.get(code);
  if (!text) {
    text = code
      .replace('alias V = vec4f;', 'alias V = f32;')
      .replace('alias U = vec4u;', 'alias U = u32;')
      .replace(ACROSS, '$1 return v; }');
    narrowed.set(code, text);
  }
  return text;
}

/** The kernel for rows of `width` numbers, and how many V such a row has. */
export const lanes = (code: string, width: number): [code: string, width: number] =>
  width % 4 === 0 ? [code, width / 4] : [narrow(code), width];
