// Reads tar archives (ustar, GNU long names, pax paths): enough for npm packages. Only Node built-ins.

const BLOCK = 512;

/** The regular files and links of an archive: { name, data, link }, one by one; `data` is a view, not a copy. */
export function* readTar(archive) {
  let longName;
  for (let at = 0; at + BLOCK <= archive.length;) {
    const header = archive.subarray(at, at + BLOCK);
    if (header.every((byte) => byte === 0)) return;
    checkSum(header, at);
    const size = octal(header.subarray(124, 136));
    const data = archive.subarray(at + BLOCK, at + BLOCK + size);
    if (data.length < size) throw new Error(`tar: the archive is cut off inside ${text(header.subarray(0, 100))}`);
    at += BLOCK + Math.ceil(size / BLOCK) * BLOCK;

    const type = String.fromCharCode(header[156]);
    if (type === 'L') longName = text(data);
    else if (type === 'x') longName = paxPath(data) ?? longName;
    else {
      const name = longName ?? fullName(header);
      longName = undefined;
      if (name.startsWith('/') || name.split('/').includes('..'))
        throw new Error(`tar: ${name} points outside the archive`);
      if (type === '0' || type === '\0') yield { name, data };
      else if (type === '2') yield { name, data, link: text(header.subarray(157, 257)) };
    }
  }
}

/** The header's bytes add up to the number it carries, its own field counted as spaces. */
function checkSum(header, at) {
  let sum = 0;
  for (let i = 0; i < BLOCK; i++) sum += i >= 148 && i < 156 ? 32 : header[i];
  if (sum !== octal(header.subarray(148, 156)))
    throw new Error(`tar: no valid header at byte ${at}; the archive is damaged`);
}

function fullName(header) {
  const name = text(header.subarray(0, 100));
  const prefix = text(header.subarray(257, 262)) === 'ustar' ? text(header.subarray(345, 500)) : '';
  return prefix ? `${prefix}/${name}` : name;
}

/** Pax records are "<length> <key>=<value>\n"; only the path matters here. */
function paxPath(data) {
  for (let at = 0; at < data.length;) {
    const space = data.indexOf(32, at);
    const length = Number(text(data.subarray(at, space)));
    if (!(length > 0)) return undefined;
    const record = text(data.subarray(space + 1, at + length - 1));
    if (record.startsWith('path=')) return record.slice('path='.length);
    at += length;
  }
  return undefined;
}

const octal = (bytes) => parseInt(text(bytes).trim() || '0', 8);

function text(bytes) {
  const end = bytes.indexOf(0);
  return Buffer.from(bytes.buffer, bytes.byteOffset, end < 0 ? bytes.length : end).toString('utf8');
}
