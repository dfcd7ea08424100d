/** metadata.jsonl and metadata.csv of an image folder → rows with their line numbers. */

export interface MetadataRow {
  line: number;
  values: Record<string, unknown>;
}
export interface MetadataProblem {
  line: number;
  reason: string;
}
export interface Metadata {
  rows: MetadataRow[];
  problems: MetadataProblem[];
}

export function readMetadata(text: string, extension: string): Metadata {
  const content = text.replace(/^\uFEFF/, '');
  return extension === '.csv' ? readCsv(content) : readJsonLines(content);
}

function readJsonLines(text: string): Metadata {
  const rows: MetadataRow[] = [];
  const problems: MetadataProblem[] = [];
  text.split('\n').forEach((content, i) => {
    if (content.trim() === '') return;
    const line = i + 1;
    try {
      const values: unknown = JSON.parse(content);
      if (typeof values !== 'object' || values === null || Array.isArray(values)) throw new Error('not an object');
      rows.push({ line, values: values as Record<string, unknown> });
    } catch (error) {
      problems.push({ line, reason: `not a line of JSON (${(error as Error).message})` });
    }
  });
  return { rows, problems };
}

/** Comma-separated values with a header line; quotes may hold commas, line breaks and "" for a quote (RFC 4180). */
function readCsv(text: string): Metadata {
  const rows: MetadataRow[] = [];
  const problems: MetadataProblem[] = [];
  let header: string[] | undefined;
  for (const { line, fields } of csvRecords(text)) {
    if (fields.length === 1 && fields[0] === '') continue;
    if (!header) {
      header = fields.map((name) => name.trim());
    } else if (fields.length !== header.length) {
      problems.push({ line, reason: `${fields.length} fields where the header has ${header.length}` });
    } else {
      rows.push({ line, values: Object.fromEntries(header.map((name, i) => [name, fields[i]])) });
    }
  }
  return { rows, problems };
}

function* csvRecords(text: string): Generator<{ line: number; fields: string[] }> {
  const field = /(?:"((?:[^"]|"")*)"|([^,\n]*?))(,|\r?\n|$)/y; // a quote that is never closed is a plain field
  let line = 1,
    first = 1;
  let fields: string[] = [];
  for (let at = 0; at < text.length || fields.length > 0;) {
    field.lastIndex = at;
    const [whole, quoted, bare, separator] = field.exec(text)!;
    fields.push(quoted !== undefined ? quoted.replaceAll('""', '"') : bare);
    line += whole.split('\n').length - 1;
    at += whole.length;
    if (separator === ',') continue;
    yield { line: first, fields };
    fields = [];
    first = line;
  }
}
