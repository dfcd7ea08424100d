import { spawnSync } from 'node:child_process';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

const test = suite('API reference');

test('every export, method and accessor has a description, and every link in one leads somewhere', () => {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    ['node_modules/typedoc/bin/typedoc', '--emit', 'none'],
    {
      encoding: 'utf8',
    },
  );
  assert.is(status, 0, `${stdout}${stderr}`);
});

test.run();
