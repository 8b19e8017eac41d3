import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RaftkvError } from '../../src/base/errors.ts';
import { readAuthFile } from '../../src/config/auth-file.ts';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'raftkv-auth-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

function write(content: string): string {
  const file = join(folder, 'passwords');
  writeFileSync(file, content, { encoding: 'latin1', mode: 0o600 });
  return file;
}

function refusal(content: string): string {
  try {
    readAuthFile(write(content));
  } catch (error) {
    if (error instanceof RaftkvError && error.code === 'AUTH_FILE_INVALID') return error.message;
    throw error;
  }
  throw new Error('the file was accepted');
}

const longest = `${'u'.repeat(256)}:${'p'.repeat(256)}\n`;

describe('a file of passwords', () => {
  it('gives each line as a user and a password, split at the first colon', () => {
    expect(readAuthFile(write('ada:secret\nbob:pa:ss\nada:second')).credentials).toEqual([
      { user: 'ada', password: 'secret' },
      { user: 'bob', password: 'pa:ss' },
      { user: 'ada', password: 'second' },
    ]);
  });

  it('is taken byte by byte', () => {
    expect(readAuthFile(write('j\xf6rg:\xc3\xa4\n')).credentials).toEqual([{ user: 'j\xf6rg', password: '\xc3\xa4' }]);
  });

  it('may be as long as its limits, and not one longer', () => {
    expect(readAuthFile(write(longest.repeat(256))).credentials).toHaveLength(256);
    expect(refusal(longest.repeat(257))).toMatch(/257 entries; at most 256 are allowed/);
    expect(refusal(`u${longest}`)).toMatch(/line 1 has a user of more than 256 bytes/);
    expect(refusal(longest.replace('\n', 'p'))).toMatch(/line 1 has a password of more than 256 bytes/);
  });

  it.each([
    ['', /is empty: no client could log in/],
    ['ada:topsecret\n\nbob:topsecret\n', /line 2 is empty/],
    ['# topsecret\nada:topsecret\n', /line 1 has no colon/],
    ['ada:topsecret\n:topsecret\n', /line 2 has no user/],
    ['topsecret:\n', /line 1 has no password/],
    ['ada:topsecret\r\n', /line 1 ends in a carriage return/],
    ['ada:top secret\n', /line 1 contains a space/],
    ['ada lovelace:topsecret\n', /line 1 contains a space/],
    ['ada:top\0secret\n', /line 1 contains a space or a NUL/],
  ])('%j is refused with the number of the line, and without its words', (content, message) => {
    expect(refusal(content)).toMatch(message);
    expect(refusal(content)).not.toMatch(/secret|ada|bob/);
  });

  it('must exist', () => {
    expect(() => readAuthFile(join(folder, 'none'))).toThrow(/none cannot be read: ENOENT/);
  });

  it('is warned of where every user of the machine can read it', () => {
    const file = write('ada:secret\n');
    expect(readAuthFile(file).warnings).toEqual([]);
    chmodSync(file, 0o644);
    expect(readAuthFile(file).warnings).toEqual([expect.stringContaining('chmod 600')]);
  });
});
