/** Reads what the engine must know out of WGSL text: entry points, their bindings, and where uniform fields lie. */

export interface Field {
  name: string;
  type: 'u32' | 'i32' | 'f32';
  offset: number;
}
export interface Uniform {
  bytes: number;
  fields: Field[];
}
export interface Entry {
  /** Bindings that the entry point uses, itself or through functions, in order. */
  bindings: { binding: number; name: string; access: 'uniform' | 'read' | 'read_write' }[];
  uniform?: Uniform;
}

/** Replace the defaults of `const NAME = …;` tunables. @throws when the kernel has no such constant */
export function specialise(code: string, constants: Record<string, number | boolean | string>): string {
  for (const [name, value] of Object.entries(constants)) {
    const pattern = new RegExp(`^(const ${name}(?:\\s*:\\s*\\w+)?\\s*=\\s*)([^;]+);`, 'm');
    const found = pattern.exec(code);
    if (!found) throw new Error(`kernel has no tunable "const ${name} = …;"\n  ${code.split('\n', 1)[0]}`);
    const literal = typeof value === 'number' && /\d+u$/.test(found[2]) ? `${value}u` : String(value);
    code = code.replace(pattern, (_, head: string) => `${head}${literal};`);
  }
  return code;
}

/** @returns every `@compute` entry point of a kernel file */
export function inspect(source: string): Map<string, Entry> {
  const code = source.replace(/\/\/.*$/gm, '').replace(/\/\*[\s\S]*?\*\//g, '');
  const vars = [...code.matchAll(/@group\(0\)\s*@binding\((\d+)\)\s*var<([^>]+)>\s*(\w+)\s*:\s*([^;]+);/g)].map((m) => {
    const access: 'uniform' | 'read' | 'read_write' =
      m[2].trim() === 'uniform' ? 'uniform' : m[2].includes('read_write') ? 'read_write' : 'read';
    return { binding: Number(m[1]), access, name: m[3], type: m[4].trim() };
  });
  const functions = new Map<string, { body: string; entry: boolean }>();
  for (const m of code.matchAll(/fn\s+(\w+)\s*\(/g)) {
    const open = code.indexOf('{', m.index);
    let depth = 1;
    let end = open + 1;
    for (; depth > 0 && end < code.length; end++) depth += code[end] === '{' ? 1 : code[end] === '}' ? -1 : 0;
    const attributes = code.slice(
      Math.max(code.lastIndexOf('}', m.index), code.lastIndexOf(';', m.index)) + 1,
      m.index,
    );
    functions.set(m[1], { body: code.slice(open, end), entry: attributes.includes('@compute') });
  }
  const entries = new Map<string, Entry>();
  for (const [name, f] of functions) {
    if (!f.entry) continue;
    const words = reachable(name, functions);
    const used = vars.filter((v) => words.has(v.name)).sort((a, b) => a.binding - b.binding);
    const uniform = used.find((v) => v.access === 'uniform');
    entries.set(name, {
      bindings: used.map(({ binding, name: n, access }) => ({ binding, name: n, access })),
      uniform: uniform && layout(code, uniform.type),
    });
  }
  return entries;
}

function reachable(name: string, functions: Map<string, { body: string }>, words = new Set<string>()): Set<string> {
  for (const word of functions.get(name)!.body.match(/(?<![.\w])[A-Za-z_]\w*/g) ?? []) {
    if (words.has(word)) continue;
    words.add(word);
    if (functions.has(word)) reachable(word, functions, words);
  }
  return words;
}

function layout(code: string, struct: string): Uniform {
  const body = new RegExp(`struct\\s+${struct}\\s*\\{([^}]*)\\}`).exec(code);
  if (!body) throw new Error(`kernel has no "struct ${struct} { … }" for its uniforms`);
  const fields: Field[] = [];
  let offset = 0;
  for (const m of body[1].matchAll(/(\w+)\s*:\s*(\w+)/g)) {
    if (m[2] !== 'u32' && m[2] !== 'i32' && m[2] !== 'f32')
      throw new Error(`uniform ${m[1]}: ${m[2]} is not u32, i32 or f32`);
    fields.push({ name: m[1], type: m[2], offset });
    offset += 4;
  }
  return { bytes: Math.ceil(offset / 16) * 16, fields };
}
