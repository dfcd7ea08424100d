import { execFile } from 'node:child_process';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import * as fs from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { findModel } from '../src/flow/recipe/hub-model.ts';
import { HubError, HubModel } from '../src/tensor/io/hub-node.ts';
import {
  answer,
  assertWhole,
  dropAfter,
  failure,
  filesIn,
  stallAfter,
  UNET,
  wanted,
  within,
  writeAsPython,
} from './hub-fixture.ts';

/** This file runs itself again to download with several processes. */
if (process.env.RECTIFLOW_PART) {
  const [endpoint, cache] = process.env.RECTIFLOW_PART.split(' ');
  console.log(await findModel('owner/name', { endpoint, cache, backoff: 2, timeout: 60 }));
} else runTests();

function runTests(): void {
  const test = suite('hub');

  test(
    'an id becomes a folder of the files that are needed, in the layout of Python',
    within(async (w) => {
      const folder = await findModel('owner/name', w.options);
      assert.is(folder, join(w.model, 'snapshots', w.server.commit));
      assert.equal(filesIn(folder), wanted);
      for (const path of wanted) {
        const { bytes, etag } = w.server.files.get(path)!;
        assert.ok(readFileSync(join(folder, path)).equals(bytes), path);
        assert.is(readlinkSync(join(folder, path)), `${path.includes('/') ? '../' : ''}../../blobs/${etag}`);
      }
      assert.is(readFileSync(join(w.model, 'refs', 'main'), 'utf8'), w.server.commit);
      assertWhole(w);
    }),
  );

  test(
    'a model that is in the cache costs no request',
    within(async (w) => {
      const folder = await findModel('owner/name', w.options);
      w.server.seen.length = 0;
      assert.is(await findModel('owner/name', w.options), folder);
      assert.is(await findModel(`owner/name@${w.server.commit}`, w.options), folder);
      assert.equal(w.server.seen, []);
    }),
  );

  test(
    'a cache that Python wrote is used as it is, also where nobody answers',
    within(async (w) => {
      const snapshot = writeAsPython(w, wanted);
      w.server.stop();
      assert.is(await findModel('owner/name', w.options), snapshot);
      assert.is(await findModel('owner/name', { ...w.options, offline: true }), snapshot);
      assert.equal(w.server.seen, []);
    }),
  );

  test(
    'what Python did not fetch is added to its cache',
    within(async (w) => {
      writeAsPython(w, wanted.slice(0, -1));
      const folder = await findModel('owner/name', w.options);
      assert.equal(filesIn(folder), wanted);
      assert.equal(
        w.server.seen.filter(({ url }) => url.includes('/bytes/')).map(({ url }) => url),
        [`/bytes/${wanted.at(-1)}`],
      );
    }),
  );

  test(
    'a path that exists wins over an id',
    within(async (w) => {
      assert.is(await findModel('src/nn', w.options), 'src/nn');
      assert.equal(w.server.seen, []);
      assert.match((await failure(findModel('./owner/name', w.options))).message, /no such folder or file/);
    }),
  );

  test(
    'a newer commit is found when asked for, and only what changed is fetched',
    within(async (w) => {
      const old = await findModel('owner/name', w.options);
      w.server.commit = 'd'.repeat(40);
      w.server.put('vae/config.json', '{"newer": true}');
      w.server.seen.length = 0;
      assert.is(await findModel('owner/name', w.options), old);
      const folder = await findModel('owner/name', { ...w.options, refresh: true });
      assert.is(folder, join(w.model, 'snapshots', w.server.commit));
      assert.is(readFileSync(join(folder, 'vae/config.json'), 'utf8'), '{"newer": true}');
      assert.is(w.server.seen.filter(({ url }) => url.includes('/resolve/')).length, 1);
    }),
  );

  test(
    'a download that fails leaves the commit before in place',
    within(async (w) => {
      const old = await findModel('owner/name', w.options);
      w.server.commit = 'd'.repeat(40);
      w.server.put(UNET, Buffer.alloc(100_000));
      w.server.faults.push([`files/bytes/${UNET}`, answer(200, {}, 'x'.repeat(100_000))]);
      assert.match((await failure(findModel('owner/name', { ...w.options, refresh: true }))).message, /damaged/);
      assert.is(await findModel('owner/name', { ...w.options, offline: true }), old);
    }),
  );

  test(
    'the variant is taken where it is asked for',
    within(async (w) => {
      const folder = await findModel('owner/name', { ...w.options, variant: 'fp16' });
      assert.equal(
        filesIn(folder).filter((name) => name.endsWith('.safetensors')),
        wanted
          .filter((name) => name.endsWith('.safetensors'))
          .map((name) => name.replace('.safetensors', '.fp16.safetensors')),
      );
      w.server.seen.length = 0;
      await findModel('owner/name', { ...w.options, variant: 'fp16' });
      assert.equal(w.server.seen, []);
      assert.match(
        (await failure(findModel('owner/name', { ...w.options, variant: 'fp8' }))).message,
        /no weights of variant fp8\n {2}there are: fp16, non_ema/,
      );
    }),
  );

  test(
    'one file of a model can be named',
    within(async (w) => {
      const file = await findModel('owner/name/v1-5-pruned.ckpt@v1', w.options);
      assert.is(file, join(w.model, 'snapshots', w.server.commit, 'v1-5-pruned.ckpt'));
      assert.ok(readFileSync(file).equals(w.server.files.get('v1-5-pruned.ckpt')!.bytes));
      assert.is(readFileSync(join(w.model, 'refs', 'v1'), 'utf8'), w.server.commit);
      assert.match(
        (await failure(findModel('owner/name/other.ckpt', w.options))).message,
        /no file other.ckpt\n {2}files of weights: v1-5-pruned.ckpt/,
      );
    }),
  );

  test(
    'a long list comes in pages',
    within(async (w) => {
      w.server.page = 3;
      assert.equal(filesIn(await findModel('owner/name', w.options)), wanted);
      assert.ok(w.server.seen.filter(({ url }) => url.includes('/tree/')).length > 6);
    }),
  );

  test(
    'a connection that breaks is taken up where it broke',
    within(async (w) => {
      w.server.faults.push([`files/bytes/${UNET}`, dropAfter(w.server, UNET, 150_000)]);
      const folder = await findModel('owner/name', w.options);
      assert.ok(readFileSync(join(folder, UNET)).equals(w.server.files.get(UNET)!.bytes));
      const ranges = w.server.seen.filter(({ url }) => url === `/bytes/${UNET}`).map(({ range }) => range);
      assert.is(ranges.length, 2);
      assert.match(ranges[1]!, /^bytes=[1-9]\d*-$/);
      assertWhole(w);
    }),
  );

  test(
    'a server without ranges sends all of it again',
    within(async (w) => {
      const { bytes } = w.server.files.get(UNET)!;
      w.server.faults.push([`files/bytes/${UNET}`, dropAfter(w.server, UNET, 150_000)]);
      w.server.faults.push([`files/bytes/${UNET}`, answer(200, { 'content-length': String(bytes.length) }, bytes)]);
      assert.ok(readFileSync(join(await findModel('owner/name', w.options), UNET)).equals(bytes));
      assertWhole(w);
    }),
  );

  test(
    'a server that falls silent is asked again',
    within(async (w) => {
      w.server.faults.push([`files/bytes/${UNET}`, stallAfter(w.server, UNET, 100_000)]);
      const folder = await findModel('owner/name', { ...w.options, timeout: 0.8 });
      assert.ok(readFileSync(join(folder, UNET)).equals(w.server.files.get(UNET)!.bytes));
      assert.match(w.notes.join('\n'), /nothing came from http.* for 0.8 s; again in a moment/);
    }),
  );

  test(
    'a server that breaks off again and again is given up, and what came is kept',
    within(async (w) => {
      for (let i = 0; i < 5; i++) w.server.faults.push([`files/bytes/${UNET}`, dropAfter(w.server, UNET, 0)]);
      const { message } = await failure(findModel('owner/name', w.options));
      assert.match(message, /tried 5 times/);
      assertWhole(w, 'any');
      assert.equal(filesIn(await findModel('owner/name', w.options)), wanted);
    }),
  );

  for (const [what, body, headers, sent] of [
    ['fewer bytes', 'x'.repeat(399_990), {}, '399990'],
    ['more bytes', 'x'.repeat(400_010), {}, '400010'],
    ['a login page', '<html>log in</html>', { 'content-type': 'text/html' }, '19, a web page'],
  ] as const)
    test(
      `${what} than listed: refused before it is fetched`,
      within(async (w) => {
        w.server.faults.push([
          `files/bytes/${UNET}`,
          answer(200, { 'content-length': String(body.length), ...headers }, body),
        ]);
        const { message } = await failure(findModel('owner/name', w.options));
        assert.match(
          message,
          new RegExp(`${UNET} has another length than listed\n  listed  400000 bytes\n  sent    ${sent}\n`),
        );
        assertWhole(w, 'any');
      }),
    );

  test(
    'more bytes than listed, without a length: refused',
    within(async (w) => {
      w.server.faults.push([
        `files/bytes/${UNET}`,
        (_, response) => {
          response.writeHead(200);
          response.write('x'.repeat(300_000));
          response.end('x'.repeat(300_000));
        },
      ]);
      assert.match((await failure(findModel('owner/name', w.options))).message, /sent {4}more/);
    }),
  );

  for (const path of [UNET, 'vae/config.json'])
    test(
      `a wrong checksum is refused: ${path}`,
      within(async (w) => {
        const { bytes, etag } = w.server.files.get(path)!;
        const other = Buffer.from(bytes);
        other[other.length >> 1] ^= 1;
        w.server.faults.push([
          path.startsWith('unet') ? `files/bytes/${path}` : path,
          answer(200, { 'content-length': String(other.length) }, other),
        ]);
        const { message } = await failure(findModel('owner/name', w.options));
        assert.match(
          message,
          new RegExp(`${path} arrives damaged\n  checksum listed  ${etag}\n  of what came     [0-9a-f]+\n`),
        );
        assert.not.ok(existsSync(join(w.model, 'blobs', etag)));
        assert.not.ok(existsSync(join(w.model, 'snapshots', w.server.commit, path)));
        assert.not.ok(existsSync(join(w.model, 'refs', 'main')));
        assertWhole(w, 'any');
        assert.equal(filesIn(await findModel('owner/name', w.options)), wanted);
      }),
    );

  test(
    '429 is obeyed: the wait that the server names, as seconds, as a date or in RateLimit',
    within(async (w) => {
      w.server.faults.push(['/api/models/', answer(429, { 'retry-after': '1' })]);
      w.server.faults.push([
        `/resolve/${w.server.commit}/vae/config.json`,
        answer(429, { ratelimit: '"resolvers";r=0;t=1' }),
      ]);
      w.server.faults.push([
        `files/bytes/${UNET}`,
        answer(503, { 'retry-after': new Date(Date.now() + 2500).toUTCString() }),
      ]);
      const start = performance.now();
      assert.equal(filesIn(await findModel('owner/name', w.options)), wanted);
      const seconds = (performance.now() - start) / 1000;
      assert.ok(seconds > 1.9, `${seconds} s`);
      assert.match(w.notes.join('\n'), /asks to slow down \(429\); again in 1 s/);
    }),
  );

  test(
    'a wait of an hour is left to the user',
    within(async (w) => {
      w.server.faults.push(['/api/models/', answer(429, { 'retry-after': '3600' })]);
      const { message } = await failure(findModel('owner/name', w.options));
      assert.match(
        message,
        /slow down \(429\)\n {2}with a token in HF_TOKEN more is allowed\n {2}it asks to wait 3600 s/,
      );
    }),
  );

  test(
    '500 and 502 pass, 503 for ever does not',
    within(async (w) => {
      w.server.faults.push(['/tree/', answer(500)], ['/revision/', answer(502)], [`files/bytes/${UNET}`, answer(500)]);
      assert.equal(filesIn(await findModel('owner/name', w.options)), wanted);
      for (let i = 0; i < 3; i++) w.server.faults.push(['/revision/', answer(503)]);
      const { message } = await failure(HubModel.open('owner/name', 'main', w.options));
      assert.match(message, /has a problem \(503\)\n {2}tried 3 times/);
    }),
  );

  test(
    'an answer that is cut short or is no hub is said to be so',
    within(async (w) => {
      w.server.faults.push([
        '/revision/',
        (_, response) => {
          response.writeHead(200, { 'content-length': 500 });
          response.write('{"sha":', () => response.destroy());
        },
      ]);
      assert.ok(await HubModel.open('owner/name', 'main', w.options));
      w.server.faults.push(['/revision/', answer(200, { 'content-type': 'text/html' }, '<html>welcome</html>')]);
      assert.match(
        (await failure(HubModel.open('owner/name', 'main', w.options))).message,
        /does not answer as a hub does .*\n {2}is HF_ENDPOINT right/,
      );
    }),
  );

  test(
    'the token goes to the hub, and never to another host',
    within(async (w) => {
      w.server.token = 'hf_secret';
      const options = { ...w.options, token: 'hf_secret', tokenFrom: 'HF_TOKEN' };
      w.server.faults.push([
        `/resolve/${w.server.commit}/vae/config.json`,
        (_, response) =>
          void response.writeHead(302, { location: `${w.server.filesHost}/bytes/vae/config.json` }).end(),
      ]);
      w.server.faults.push([
        '/tree/',
        (_, response) => {
          response.setHeader('link', `<${w.server.filesHost}/stolen>; rel="next"`);
          response.end('[]');
        },
      ]);
      w.server.faults.push(['files/stolen', answer(200, { 'content-type': 'application/json' }, '[]')]);
      await failure(findModel('owner/name', options));
      assert.is(w.server.seen.at(-1)!.url, '/stolen');
      assert.equal(filesIn(await findModel('owner/name', options)), wanted);
      const hosts = (host: string) =>
        new Set(w.server.seen.filter((one) => one.host === host).map((one) => one.authorization));
      assert.equal([...hosts('hub')], ['Bearer hf_secret']);
      assert.equal([...hosts('files')], [undefined]);
    }),
  );

  test(
    'redirects without end, or to what is no address, are refused',
    within(async (w) => {
      for (let i = 0; i < 12; i++) w.server.faults.push(['/again', answer(302, { location: '/again' })]);
      w.server.faults.push(['/revision/', answer(302, { location: '/again' })]);
      assert.match((await failure(findModel('owner/name', w.options))).message, /redirects without end/);
      w.server.faults.push(['/revision/', answer(302, { location: 'file:///etc/passwd' })]);
      assert.match((await failure(findModel('owner/name', w.options))).message, /no web address\n {2}file:/);
    }),
  );

  const refusals: [what: string, status: number, code: string, token: string | undefined, expected: RegExp][] = [
    [
      'no token',
      401,
      'RepoNotFound',
      undefined,
      /refused \(401 from http.*\)\n.*private.*\n.*owner\/name\n.*settings\/tokens and put it into HF_TOKEN/,
    ],
    ['a gated model, no token', 401, 'GatedRepo', undefined, /refused.*\n {2}its authors ask who downloads it\n/],
    ['an old token', 401, 'RepoNotFound', 'hf_old', /refused.*\n.*the token in HF_TOKEN has expired/],
    [
      'a gated model',
      403,
      'GatedRepo',
      'hf_mine',
      /forbidden \(403.*\n {2}the account of the token in HF_TOKEN has no access\n {2}accept the terms at http.*owner\/name/,
    ],
    ['no such model', 404, 'RepoNotFound', 'hf_mine', /not found \(404.*\n {2}is it spelt right\?/],
  ];
  for (const [what, status, code, token, expected] of refusals)
    test(
      `${status} is explained: ${what}`,
      within(async (w) => {
        w.server.faults.push(['/revision/', answer(status, { 'x-error-code': code })]);
        const error = (await failure(
          findModel('owner/name', { ...w.options, token, tokenFrom: 'HF_TOKEN' }),
        )) as HubError;
        assert.match(error.message, expected);
        assert.match(error.message, /\(and there is no folder or file owner\/name here\)$/);
        assert.is(error.status, status);
        assert.not.match(error.message, /hf_/);
        assert.is(w.server.seen.length, 1);
      }),
    );

  test(
    'a revision that is not there is named',
    within(async (w) => {
      assert.match(
        (await failure(findModel('owner/name@v9', w.options))).message,
        /it has no revision "v9"; see http.*\/tree\/main/,
      );
    }),
  );

  test(
    'a file host that refuses an old link is asked through the hub again',
    within(async (w) => {
      w.server.faults.push([`files/bytes/${UNET}`, answer(403)]);
      assert.equal(filesIn(await findModel('owner/name', w.options)), wanted);
      assert.is(w.server.seen.filter(({ url }) => url.includes(`/resolve/${w.server.commit}/${UNET}`)).length, 2);
    }),
  );

  test(
    'nobody there: says where, and goes on with what is in the cache',
    within(async (w) => {
      w.server.stop();
      assert.match(
        (await failure(findModel('owner/name', w.options))).message,
        /cannot reach http:\/\/127.0.0.1:\d+: nobody answers there \(ECONNREFUSED\)\n {2}tried 3 times/,
      );
      const snapshot = writeAsPython(w, wanted);
      assert.is(await findModel('owner/name', { ...w.options, refresh: true }), snapshot);
      assert.match(w.notes.at(-1)!, /cannot reach .*; going on with what is in the cache/);
    }),
  );

  test(
    'offline: nothing is asked, and what is missing is named',
    within(async (w) => {
      const options = { ...w.options, offline: true };
      assert.match(
        (await failure(findModel('owner/name', options))).message,
        /not in the cache whole \(no revision main of it\), and HF_HUB_OFFLINE forbids to ask for it\n {2}cache {2}\/.*\n.*rectiflow download owner\/name/,
      );
      writeAsPython(
        w,
        wanted.filter((path) => !path.startsWith('vae/')),
      );
      assert.match((await failure(findModel('owner/name', options))).message, /not a whole model; missing: vae\)/);
      assert.match((await failure(HubModel.open('owner/name', 'main', options))).message, /HF_HUB_OFFLINE/);
      assert.equal(w.server.seen, []);
    }),
  );

  const lefts: [who: string, name: (etag: string) => string][] = [
    ['Python', (etag) => `${etag}.incomplete`],
    ['a process that is gone', (etag) => `${etag}.elsewhere-4000000-0123abcd-0.incomplete`],
  ];
  for (const [who, name] of lefts)
    test(
      `what ${who} left of a file is taken up`,
      within(async (w) => {
        const { bytes, etag } = w.server.files.get(UNET)!;
        const left = join(w.model, 'blobs', name(etag));
        mkdirSync(dirname(left), { recursive: true });
        writeFileSync(left, bytes.subarray(0, 123_456));
        utimesSync(left, 1e9, 1e9);
        const folder = await findModel('owner/name', w.options);
        assert.ok(readFileSync(join(folder, UNET)).equals(bytes));
        assert.equal(
          w.server.seen.filter(({ url }) => url === `/bytes/${UNET}`).map(({ range }) => range),
          ['bytes=123456-'],
        );
        assertWhole(w);
      }),
    );

  test(
    'what was left and is damaged, too long or whole is found out',
    within(async (w) => {
      const cut = {
        damaged: Buffer.alloc(100_000),
        long: Buffer.alloc(60_001),
        whole: w.server.files.get('text_encoder/model.safetensors')!.bytes,
      };
      const paths = {
        damaged: UNET,
        long: 'vae/diffusion_pytorch_model.safetensors',
        whole: 'text_encoder/model.safetensors',
      };
      mkdirSync(join(w.model, 'blobs'), { recursive: true });
      for (const what of ['damaged', 'long', 'whole'] as const) {
        const left = join(w.model, 'blobs', `${w.server.files.get(paths[what])!.etag}.incomplete`);
        writeFileSync(left, cut[what]);
        utimesSync(left, 1e9, 1e9);
      }
      assert.equal(filesIn(await findModel('owner/name', w.options)), wanted);
      const ranges = (path: string) =>
        w.server.seen.filter(({ url }) => url === `/bytes/${path}`).map(({ range }) => range);
      assert.equal(ranges(paths.damaged), ['bytes=100000-', undefined]);
      assert.equal(ranges(paths.long), [undefined]);
      assert.equal(ranges(paths.whole), []);
      assertWhole(w);
    }),
  );

  test(
    'the list of files is kept as Python keeps it, so that a model of one variant costs no request either',
    within(async (w) => {
      for (const path of [...w.server.files.keys()])
        if (/safetensors$/.test(path) && !path.includes('.fp16.')) w.server.files.delete(path);
      for (const path of [...w.server.files.keys()]) if (path.endsWith('.bin')) w.server.files.delete(path);
      const folder = await findModel('owner/name', w.options);
      const tree = join(w.model, 'trees', `${w.server.commit}.json`);
      const { format_version, files } = JSON.parse(readFileSync(tree, 'utf8'));
      const unet = w.server.files.get(UNET.replace('.s', '.fp16.s'))!;
      assert.is(format_version, 1);
      assert.equal(Object.keys(files), [...w.server.files.keys()].sort());
      const { blob_id, ...large } = files[UNET.replace('.s', '.fp16.s')];
      assert.equal(large, { size: 400_000, lfs_sha256: unet.etag, lfs_size: 400_000 });
      assert.match(blob_id, /^[0-9a-f]{40}$/);
      w.server.seen.length = 0;
      assert.is(await findModel('owner/name', w.options), folder);
      assert.equal(w.server.seen, []);
      for (const text of ['{', '{"format_version": 2}', '{"format_version": 1, "files": {"../x": {"size": 1}}}']) {
        writeFileSync(tree, text);
        assert.is(await findModel('owner/name', w.options), folder);
        assert.ok(
          w.server.seen.some(({ url }) => url.includes('/tree/')),
          text,
        );
      }
    }),
  );

  test(
    'a partial file that a Python at work has, and one it alone can use, are left alone',
    within(async (w) => {
      const { bytes, etag } = w.server.files.get(UNET)!;
      const theirs = join(w.model, 'blobs', `${etag}.0123abcd.incomplete`);
      const shared = join(w.model, 'blobs', `${etag}.incomplete`);
      mkdirSync(dirname(theirs), { recursive: true });
      writeFileSync(theirs, bytes.subarray(0, 1000));
      utimesSync(theirs, 1e9, 1e9);
      writeFileSync(shared, bytes.subarray(0, 2000));
      const stopping = new AbortController();
      const onNote = (note: string) => note.includes('waiting for it') && stopping.abort(new Error(note));
      const { message } = await failure(findModel('owner/name', { ...w.options, signal: stopping.signal, onNote }));
      assert.match(message, new RegExp(`${UNET} is being downloaded already`));
      utimesSync(shared, 1e9, 1e9); // it has given up
      await findModel('owner/name', w.options);
      assert.is(w.server.seen.filter(({ url }) => url === `/bytes/${UNET}`).at(-1)!.range, 'bytes=2000-');
      assert.ok(existsSync(theirs));
    }),
  );

  test(
    'a blob that was cut short on this disk is fetched again',
    within(async (w) => {
      const folder = await findModel('owner/name', w.options);
      truncateSync(join(w.model, 'blobs', w.server.files.get(UNET)!.etag), 1000);
      await findModel('owner/name', { ...w.options, refresh: true });
      assert.ok(readFileSync(join(folder, UNET)).equals(w.server.files.get(UNET)!.bytes));
    }),
  );

  for (const path of [
    '../../x.json',
    '/etc/x.json',
    'unet/../../x.json',
    'unet\\..\\x.json',
    'C:x.json',
    'unet//x.json',
    '',
  ])
    test(
      `a file listed as ${JSON.stringify(path)} is refused`,
      within(async (w) => {
        w.server.lies['vae/config.json'] = { path };
        assert.match((await failure(findModel('owner/name', w.options))).message, /outside the model's folder/);
        assert.equal(filesIn(dirname(w.cache)), []);
      }),
    );

  test(
    'a commit, checksum or size that is none is refused',
    within(async (w) => {
      for (const [lie, expected] of [
        [{ oid: '../../../x' }, /without a checksum/],
        [{ oid: undefined }, /without a checksum/],
        [{ lfs: { oid: '..', size: 1 } }, /without a checksum/],
        [{ size: -1 }, /impossible size/],
        [{ size: 'many' }, /impossible size/],
      ] as const) {
        w.server.lies['vae/config.json'] = lie;
        assert.match((await failure(findModel('owner/name', w.options))).message, expected);
      }
      w.server.commit = '../../../../x';
      assert.match((await failure(findModel('owner/name', w.options))).message, /names a commit that is none/);
      assert.equal(filesIn(dirname(w.cache)), []);
    }),
  );

  test(
    'a model larger than the disk is refused before it is fetched',
    within(async (w) => {
      w.server.lies[UNET] = { lfs: { oid: 'a'.repeat(64), size: 9e15 } };
      assert.match(
        (await failure(findModel('owner/name', w.options))).message,
        /does not fit on the disk\n {2}needed {2}9000 TB\n {2}free/,
      );
      assert.equal(w.server.fetches('.safetensors'), []);
    }),
  );

  test(
    'a full disk is said to be so; what is there is kept and taken up',
    within(async (w) => {
      const full: typeof fs.open = async (...given) => {
        const file = await fs.open(...given);
        const write = file.write.bind(file) as (...rest: any[]) => Promise<any>;
        file.write = (async (bytes: Uint8Array, offset: number, length: number, position: number) => {
          if (position + length > 200_000) throw Object.assign(new Error('ENOSPC'), { code: 'ENOSPC' });
          return write(bytes, offset, length, position);
        }) as typeof file.write;
        return file;
      };
      const disk = { open: full as any, symlink: fs.symlink, link: fs.link };
      const { message } = await failure(findModel('owner/name', { ...w.options, disk }));
      assert.match(
        message,
        /the disk is full\n {2}\/.*\.incomplete\n {2}[\d.]+ kB of 400 kB are kept; free [\d.]+ kB and do the same again, or set HF_HOME/,
      );
      assertWhole(w, 'any');
      w.server.seen.length = 0;
      assert.equal(filesIn(await findModel('owner/name', w.options)), wanted);
      assert.match(w.server.seen.find(({ url }) => url === `/bytes/${UNET}`)!.range!, /^bytes=\d+-$/);
      assertWhole(w);
    }),
  );

  test(
    'a disk without symbolic links gets hard links, without these copies',
    within(async (w) => {
      const no = async () => {
        throw Object.assign(new Error('EPERM'), { code: 'EPERM' });
      };
      const hard = await findModel('owner/name', { ...w.options, disk: { open: fs.open, symlink: no, link: fs.link } });
      assert.ok(lstatSync(join(hard, UNET)).isFile());
      assert.is(lstatSync(join(hard, UNET)).nlink, 2);
      await fs.rm(join(w.model, 'snapshots'), { recursive: true });
      const copied = await findModel('owner/name', { ...w.options, disk: { open: fs.open, symlink: no, link: no } });
      assert.is(lstatSync(join(copied, UNET)).nlink, 1);
      assert.ok(readFileSync(join(copied, UNET)).equals(w.server.files.get(UNET)!.bytes));
      assertWhole(w);
    }),
  );

  test(
    'stopped in the middle: nothing half under a final name, and the rest later',
    within(async (w) => {
      w.server.faults.push([`files/bytes/${UNET}`, stallAfter(w.server, UNET, 250_000)]);
      const stopping = new AbortController();
      const reason = new Error('enough');
      const stopped = failure(
        findModel('owner/name', {
          ...w.options,
          signal: stopping.signal,
          onProgress: ({ done, total }) => done === total - 150_000 && stopping.abort(reason),
        }),
      );
      assert.is(await stopped, reason);
      assertWhole(w, 'any');
      w.server.seen.length = 0;
      assert.equal(filesIn(await findModel('owner/name', w.options)), wanted);
      assert.is(w.server.seen.find(({ url }) => url === `/bytes/${UNET}`)!.range, 'bytes=250000-');
      assertWhole(w);
    }),
  );

  test(
    'progress grows to the whole',
    within(async (w) => {
      const seen: { done: number; total: number }[] = [];
      await findModel('owner/name', { ...w.options, onProgress: (progress) => seen.push(progress) });
      const bytes = wanted.slice(1).reduce((sum, path) => sum + w.server.files.get(path)!.bytes.length, 0);
      assert.equal(
        seen.map(({ done }) => done).sort((a, b) => a - b),
        seen.map(({ done }) => done),
      );
      assert.equal([seen.at(-1)!.done, seen.at(-1)!.total], [bytes, bytes]);
    }),
  );

  test(
    'two downloads at once in one process fetch a file once',
    within(async (w) => {
      const folders = await Promise.all([findModel('owner/name', w.options), findModel('owner/name', w.options)]);
      assert.equal(filesIn(folders[1]), wanted);
      assert.is(w.server.seen.filter(({ url }) => url === `/bytes/${UNET}`).length, 1);
      assertWhole(w);
    }),
  );

  const play = ({ server, cache }: { server: { endpoint: string }; cache: string }) =>
    promisify(execFile)(process.execPath, [fileURLToPath(import.meta.url)], {
      env: { ...process.env, RECTIFLOW_PART: `${server.endpoint} ${cache}` },
    });

  test(
    'two processes at once do not disturb each other',
    within(async (w) => {
      const said = await Promise.all([play(w), play(w)]);
      for (const { stdout } of said) assert.equal(filesIn(stdout.trim()), wanted);
      assertWhole(w);
    }),
  );

  test(
    'a process that is killed leaves nothing half; the next one goes on at once',
    within(async (w) => {
      w.server.faults.push([`files/bytes/${UNET}`, stallAfter(w.server, UNET, 250_000)]);
      const killed = play(w);
      killed.catch(() => {});
      while (
        !filesIn(join(w.model, 'blobs')).some(
          (name) =>
            name.startsWith(w.server.files.get(UNET)!.etag) && lstatSync(join(w.model, 'blobs', name)).size === 250_000,
        )
      )
        await new Promise((resolve) => setTimeout(resolve, 20));
      killed.child.kill('SIGKILL');
      await failure(killed);
      const blobs = filesIn(join(w.model, 'blobs'));
      assert.ok(blobs.some((name) => name.endsWith('.incomplete')));
      w.server.seen.length = 0;
      const start = performance.now();
      assert.equal(filesIn(await findModel('owner/name', w.options)), wanted);
      assert.ok(performance.now() - start < 15_000);
      assert.is(w.server.seen.find(({ url }) => url === `/bytes/${UNET}`)!.range, 'bytes=250000-');
      assertWhole(w);
    }),
  );

  test.run();
}
