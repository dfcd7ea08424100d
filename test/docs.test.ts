import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

const pages = [
  'README.md',
  'CONTRIBUTING.md',
  ...['docs', 'examples'].flatMap((folder) =>
    readdirSync(folder).flatMap((file) => (file.endsWith('.md') ? [`${folder}/${file}`] : [])),
  ),
];
const texts = new Map(pages.map((page) => [page, readFileSync(page, 'utf8')]));

/** Fenced code of a page, with the words after its language: ```ts run. */
function blocks(page: string): { language: string; words: string; code: string; line: number }[] {
  const text = texts.get(page)!;
  return [...text.matchAll(/^ *```(\w*) *([^\n]*)\n([\s\S]*?)^ *```$/gm)].map((m) => ({
    language: m[1],
    words: m[2],
    code: m[3],
    line: text.slice(0, m.index).split('\n').length,
  }));
}

/** The page without its code. */
const prose = (page: string): string => texts.get(page)!.replace(/^ *```[\s\S]*?^ *```$/gm, '');

/** GitHub's anchors of the headings of a page. */
const anchors = (page: string): string[] =>
  [...prose(page).matchAll(/^#+ +(.+)$/gm)].map(([, heading]) =>
    heading
      .toLowerCase()
      .replace(/[^\p{L}\p{N}\s-]/gu, '')
      .trim()
      .replace(/\s/g, '-'),
  );

const test = suite('documentation');

test('every relative link leads somewhere', () => {
  const broken: string[] = [];
  for (const page of pages) {
    const plain = prose(page).replace(/`[^`\n]*`/g, '');
    for (const [, target] of plain.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^[a-z]+:/.test(target)) continue;
      const [path, anchor] = target.split('#');
      const file = path ? normalize(join(dirname(page), path)).replaceAll('\\', '/') : page;
      if (!existsSync(file)) broken.push(`${page}: ${target}`);
      else if (anchor && texts.has(file) && !anchors(file).includes(anchor))
        broken.push(`${page}: ${target}: no such heading`);
    }
  }
  assert.equal(broken, []);
});

test('every file of the source that is named in prose exists', () => {
  const missing: string[] = [];
  for (const page of pages) {
    for (const [, path] of prose(page).matchAll(/`((?:src|test|scripts|examples|docs|bench)\/[\w./-]+)`/g)) {
      if (!existsSync(path)) missing.push(`${page}: ${path}`);
    }
  }
  assert.equal(missing, []);
});

/** Lines of shell blocks and of inline code that call this project. */
function commands(page: string): string[] {
  const shell = blocks(page)
    .filter(({ language }) => language === 'sh' || language === '')
    .flatMap(({ code }) => code.split('\n'));
  const inline = [...prose(page).matchAll(/`([^`\n]+)`/g)].map(([, code]) => code);
  return [...shell, ...inline]
    .map((line) => line.replace(/\s+#.*/, '').trim())
    .filter((line) => /^(npm|node) /.test(line));
}

test('every npm script and every node command that is mentioned exists', () => {
  const { scripts } = JSON.parse(readFileSync('package.json', 'utf8'));
  const known = new Set(readdirSync('src/cli/commands').map((file) => file.replace('.ts', '')));
  const wrong: string[] = [];
  let checked = 0;
  for (const page of pages) {
    for (const line of commands(page)) {
      const [program, first, second] = line.split(/\s+/);
      const script = program === 'npm' && (first === 'run' ? second : first === 'test' ? 'test' : undefined);
      const command = program === 'node' && /^cli(\.js)?$/.test(first) ? second : undefined;
      const file = program === 'node' && /\.(mjs|js)$/.test(first) ? first : undefined;
      const argument = file?.endsWith('run.mjs') && /\//.test(second ?? '') ? second : undefined;
      if (script && !scripts[script]) wrong.push(`${page}: ${line}: no such script`);
      if (command && !/^[<-]/.test(command) && !known.has(command)) wrong.push(`${page}: ${line}: no such command`);
      for (const path of [file, argument]) if (path && !existsSync(path)) wrong.push(`${page}: ${line}: no ${path}`);
      checked++;
    }
  }
  assert.equal(wrong, []);
  assert.ok(checked > 20, `only ${checked} commands were found`);
});

test('options of commands that are mentioned are in their help', () => {
  const helps = new Map<string, string>();
  const help = (command: string): string => {
    if (!helps.has(command))
      helps.set(command, spawnSync(process.execPath, ['cli', command, '--help'], { encoding: 'utf8' }).stdout);
    return helps.get(command)!;
  };
  const wrong: string[] = [];
  for (const page of pages) {
    for (const line of commands(page)) {
      const command = /^node cli(?:\.js)? (\w+)/.exec(line)?.[1];
      if (!command) continue;
      for (const [, option] of line.matchAll(/ --([\w-]+)/g)) {
        if (!help(command).includes(`--${option}`)) wrong.push(`${page}: ${line}: no --${option}`);
      }
    }
  }
  assert.equal(wrong, []);
});

const folder = join('.build', `docs-${process.pid}`);
test.after(() => rmSync(folder, { recursive: true, force: true }));

const runnable = pages.flatMap((page) =>
  blocks(page)
    .filter(({ language, words }) => language === 'ts' && words === 'run')
    .map((block) => ({ page, ...block })),
);

test('README.md has code that is run', () => assert.ok(runnable.some(({ page }) => page === 'README.md')));

for (const { page, line, code } of runnable) {
  test(`the code at ${page}:${line} runs`, () => {
    mkdirSync(folder, { recursive: true });
    const file = join(folder, `${page.replace(/\W/g, '-')}-${line}.ts`);
    writeFileSync(file, code);
    const options = { encoding: 'utf8', timeout: 120_000 } as const;
    const { status, stdout, stderr } = spawnSync(process.execPath, ['scripts/run.mjs', file], options);
    assert.is(status, 0, `${page}:${line}\n${stdout}${stderr}`);
    for (const [, promised] of code.matchAll(/\/\/ → (.+)$/gm))
      assert.ok(stdout.includes(promised), `${page}:${line} should print ${promised}, prints\n${stdout}`);
  });
}

test.run();
