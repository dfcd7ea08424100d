/**
 * Kernels are written for arrays of f32; this makes them work on arrays of f16, by rewriting text.
 *
 *     x: array<f32>             x: array<f16>                          x: array<u32>, two halves to a word
 *     … x[i] …                  … load_half_x(i) …                     which is f32(x[i]), or unpacks a word
 *     y[i] = e;                 store_half_y(i, e);                    which is y[i] = f16(e), or packs a word
 *     y[i] += e;                store_half_y(i, load_half_y(i) + (e));
 *
 * So all arithmetic stays f32, and only loads and stores know what they touch.
 */
import type { Capabilities } from './device.ts';
import { GpuError } from './errors.ts';

/** 'native': `array<f16>`, by shader-f16. 'packed': two to a u32, on any adapter. */
export type HalfStorage = 'native' | 'packed';

/** How f16 arrays are bound on this adapter; `capabilities.force.f16` can ask for 'packed'. */
export const halfStorage = ({ f16, force }: Pick<Capabilities, 'f16' | 'force'>): HalfStorage =>
  f16 && force.f16 !== 'packed' ? 'native' : 'packed';

/**
 * The kernel with f16 in the bindings `names`, which are arrays of f32 or vec4f. Arrays of u32 and its vectors take the
 * bits as they are. @throws when a binding has another type, or is used other than by `x[i]`
 */
export function withHalves(code: string, names: readonly string[], storage: HalfStorage): string {
  const kernel = `kernel "${code.split('\n', 1)[0].slice(0, 60)}"`;
  let text = code.replace(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, (comment) => comment.replace(/[^\n]/g, ''));
  const rewritten = new Set<string>();
  let helpers = storage === 'packed' ? PACKING : '';
  for (const name of names) {
    const found = new RegExp(`var<storage,\\s*(\\w+)>\\s*${name}\\s*:\\s*([^;]+);`).exec(text);
    const element = found && elementType(text, found[2]);
    if (element === 'bits') continue;
    if (!found || !element) {
      const what = found ? `is ${found[2].trim()}` : 'is no storage binding';
      throw new GpuError(
        `${kernel} cannot hold f16 in "${name}", which ${what}\n  only array<f32> and array<vec4f> can`,
      );
    }
    const shared = storage === 'packed' && element === 'f32' && found[1] === 'read_write';
    const type = storage === 'native' ? NATIVE[element] : shared ? 'atomic<u32>' : PACKED[element];
    text = text.replace(found[0], `var<storage, ${found[1]}> ${name}: array<${type}>;`);
    helpers += accessors(name, element, storage, found[1] === 'read_write');
    rewritten.add(name);
  }
  if (!rewritten.size) return code;
  text = everyFunction(text, (body, hidden) => new Accesses(kernel, rewritten).rewrite(body, hidden));
  return `${storage === 'native' ? 'enable f16; ' : ''}${text}\n${helpers}`;
}

type Element = 'f32' | 'vec4f';
const NATIVE = { f32: 'f16', vec4f: 'vec4<f16>' };
const PACKED = { f32: 'u32', vec4f: 'vec2u' };

/** Element of an `array<…>`, aliases followed; 'bits' where a kernel copies words without looking at them. */
function elementType(text: string, type: string): Element | 'bits' | undefined {
  const inner = /^array<(.+)>$/.exec(type.trim())?.[1].trim() ?? '';
  const alias = new RegExp(`\\balias ${inner.replace(/\W/g, '')}\\s*=\\s*([^;]+);`).exec(text)?.[1].trim();
  switch ((alias ?? inner).replace('vec4<f32>', 'vec4f')) {
    case 'f32':
      return 'f32';
    case 'vec4f':
      return 'vec4f';
    case 'u32':
    case 'vec2u':
    case 'vec4u':
      return 'bits';
    default:
      return undefined;
  }
}

/** f32 → f16 bits in integers, nearest even: WGSL leaves the rounding of pack2x16float open, and SwiftShader's overflow is NaN. */
const PACKING = `
fn half_bits(v: f32) -> u32 {
  let bits = bitcast<u32>(v);
  let m = bits & 0x7fffffffu;
  let normal = (m - 0x38000000u + 0xfffu + ((m >> 13u) & 1u)) >> 13u;
  let shift = 126u - clamp(m >> 23u, 101u, 112u);
  let whole = (m & 0x7fffffu) | 0x800000u;
  let small = (whole + (1u << (shift - 1u)) - 1u + ((whole >> shift) & 1u)) >> shift;
  var half = select(normal, small, m < 0x38800000u);
  half = select(half, 0x7c00u, m >= 0x477ff000u);
  half = select(half, 0x7e00u, m > 0x7f800000u);
  return half | ((bits >> 16u) & 0x8000u);
}
`;

/** `load_half_<name>` and `store_half_<name>`. */
function accessors(name: string, element: Element, storage: HalfStorage, writable: boolean): string {
  const load = (body: string) => `fn load_half_${name}(i: u32) -> ${element} { ${body} }\n`;
  const store = (body: string) => (writable ? `fn store_half_${name}(i: u32, v: ${element}) { ${body} }\n` : '');
  if (storage === 'native')
    return load(`return ${element}(${name}[i]);`) + store(`${name}[i] = ${NATIVE[element]}(v);`);
  if (element === 'vec4f') {
    const pair = (x: string, y: string) => `half_bits(v.${x}) | (half_bits(v.${y}) << 16u)`;
    return (
      load(`let w = ${name}[i]; return vec4f(unpack2x16float(w.x), unpack2x16float(w.y));`) +
      store(`${name}[i] = vec2u(${pair('x', 'y')}, ${pair('z', 'w')});`)
    );
  }
  const word = writable ? `atomicLoad(&${name}[i >> 1u])` : `${name}[i >> 1u]`;
  // The other half of the word is another thread's: an xor that changes only the own half loses nothing of it.
  return (
    load(`return unpack2x16float(${word} >> ((i & 1u) << 4u)).x;`) +
    store(
      `let shift = (i & 1u) << 4u; ` +
        `atomicXor(&${name}[i >> 1u], (${word} ^ (half_bits(v) << shift)) & (0xffffu << shift));`,
    )
  );
}

/** `text` with the body of each function replaced; `change` also gets the names of its parameters. */
function everyFunction(text: string, change: (body: string, parameters: ReadonlySet<string>) => string): string {
  const head = /\bfn\s+\w+\s*\(/g;
  let out = '';
  let done = 0;
  for (let m = head.exec(text); m; m = head.exec(text)) {
    const end = closing(text, head.lastIndex);
    const parameters = [...text.slice(head.lastIndex, end).matchAll(/(\w+)\s*:/g)].map((p) => p[1]);
    const open = text.indexOf('{', end) + 1;
    const close = closing(text, open);
    out += text.slice(done, open) + change(text.slice(open, close), new Set(parameters));
    head.lastIndex = done = close;
  }
  return out + text.slice(done);
}

const ASSIGN = /\s*(=(?!=)|[-+*/%&|^]=|<<=|>>=|\+\+|--)/y;

/** Rewrites every access of `names`, minding local variables that hide them. */
class Accesses {
  constructor(
    private readonly kernel: string,
    private readonly names: ReadonlySet<string>,
  ) {}

  rewrite(text: string, hidden: ReadonlySet<string>): string {
    const token = /\b(?:let|var|const)\s+(\w+)|(?<!\.\s*)\b[A-Za-z_]\w*|[{};]/g;
    const scopes = [new Set(hidden)];
    const declared: string[] = [];
    let out = '';
    let done = 0;
    for (let m = token.exec(text); m; m = token.exec(text)) {
      const [word, local] = m;
      const scope = scopes.at(-1)!;
      if (local) declared.push(local);
      else if (word === '{') scopes.push(new Set([...scope, ...declared.splice(0)]));
      else if (word === '}') scopes.pop();
      else if (word === ';')
        declared.splice(0).forEach((name) => scope.add(name)); // not within its own initialiser
      else if (this.names.has(word) && !scope.has(word)) {
        const access = this.#access(text, word, m.index, scope);
        out += text.slice(done, m.index) + access.text;
        token.lastIndex = done = access.end;
      }
    }
    return out + text.slice(done);
  }

  /** What stands for the access of `name` at `at`, and where it ends. */
  #access(text: string, name: string, at: number, hidden: ReadonlySet<string>): { text: string; end: number } {
    const open = /\s*\[/y;
    open.lastIndex = at + name.length;
    if (!open.test(text) || /(?<!&)& ?$/.test(text.slice(Math.max(0, at - 3), at)))
      throw this.#refusal(name, 'is passed on');
    const close = closing(text, open.lastIndex);
    const place = `u32(${this.rewrite(text.slice(open.lastIndex, close), hidden)})`;
    const load = `load_half_${name}(${place})`;
    const operator = assignmentAt(text, close + 1);
    if (!operator) {
      if (assignmentAt(text, endOfParts(text, close + 1))) throw this.#refusal(name, 'is written in part');
      return { text: load, end: close + 1 };
    }
    if (operator.text === '++' || operator.text === '--') throw this.#refusal(name, `is changed by ${operator.text}`);
    const end = endOfExpression(text, operator.end);
    const value = this.rewrite(text.slice(operator.end, end).trim(), hidden);
    const sum = operator.text === '=' ? value : `${load} ${operator.text.slice(0, -1)} (${value})`;
    return { text: `store_half_${name}(${place}, ${sum})`, end };
  }

  #refusal(name: string, what: string): GpuError {
    return new GpuError(`${this.kernel} cannot hold f16 in "${name}", which ${what}\n  write it as ${name}[i] = …`);
  }
}

function assignmentAt(text: string, at: number): { text: string; end: number } | undefined {
  ASSIGN.lastIndex = at;
  const m = ASSIGN.exec(text);
  return m ? { text: m[1], end: ASSIGN.lastIndex } : undefined;
}

/** Skips `.xy` and `[k]` behind an access. */
function endOfParts(text: string, at: number): number {
  const part = /\s*(?:\.\s*\w+|(\[))/y;
  part.lastIndex = at;
  for (let m = part.exec(text); m; m = part.exec(text)) {
    at = m[1] ? closing(text, part.lastIndex) + 1 : part.lastIndex;
    part.lastIndex = at;
  }
  return at;
}

/** Where the right side of an assignment ends: before its semicolon, or the bracket around it. */
function endOfExpression(text: string, at: number): number {
  while (at < text.length && !';)'.includes(text[at]))
    at = '([{'.includes(text[at]) ? closing(text, at + 1) + 1 : at + 1;
  return at;
}

/** @returns where the bracket that is open at `at` closes */
function closing(text: string, at: number): number {
  for (let depth = 1; at < text.length; at++) {
    if ('([{'.includes(text[at])) depth++;
    else if (')]}'.includes(text[at]) && --depth === 0) return at;
  }
  throw new GpuError('unbalanced brackets in a kernel');
}
