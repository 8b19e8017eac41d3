import { mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { writeFully } from '../../../src/storage/disk/disk.ts';
import { fileDisk } from '../../../src/storage/disk/file-disk.ts';
import { openMeta } from '../../../src/storage/meta.ts';
import { append, errorOf, open, someEntries, texts } from '../wal/harness.ts';

let root: string;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'raftkv-disk-'));
});

afterEach(() => {
  rmSync(root, { recursive: true, force: true });
});

describe('the disk of the machine', () => {
  it('makes folders with their parents, and lists names in order', async () => {
    const folder = join(root, 'a/b/c');
    await fileDisk.makeDirectory(folder);
    await fileDisk.makeDirectory(folder);
    for (const name of ['z', 'a', 'm']) writeFileSync(join(folder, name), '');
    expect(await fileDisk.list(folder)).toEqual(['a', 'm', 'z']);
    expect(await fileDisk.list(join(root, 'nowhere'))).toEqual([]);
  });

  it('creates a file only where there is none, and opens one only where there is', async () => {
    const path = join(root, 'file');
    await expect(fileDisk.open(path, { create: false, dataSync: false })).rejects.toMatchObject({ code: 'ENOENT' });
    await (await fileDisk.open(path, { create: true, dataSync: false })).close();
    await expect(fileDisk.open(path, { create: true, dataSync: false })).rejects.toMatchObject({ code: 'EEXIST' });
  });

  it('writes and reads at positions, with and without O_DSYNC', async () => {
    for (const dataSync of [true, false]) {
      const path = join(root, `file-${dataSync}`);
      const file = await fileDisk.open(path, { create: true, dataSync });
      await writeFully(file, Buffer.from('hello world'), 5, 3);
      await new Promise<void>((done) => file.write(Buffer.from('hello world'), 6, 5, 8, () => done()));
      await file.sync();
      expect(await file.size()).toBe(13);
      const back = Buffer.alloc(20);
      expect(await file.read(back, 2, 18, 0)).toBe(13);
      expect(back.toString('latin1', 5, 15)).toBe('helloworld');
      expect(await file.read(back, 0, 20, 13)).toBe(0);
      await file.close();
    }
  });

  it('takes one write at a time per file', async () => {
    const file = await fileDisk.open(join(root, 'file'), { create: true, dataSync: true });
    const bytes = Buffer.alloc(10);
    const first = writeFully(file, bytes, 10, 0);
    await expect(writeFully(file, bytes, 10, 10)).rejects.toMatchObject({ code: 'INVARIANT_BROKEN' });
    await first;
    await file.close();
  });

  it('says so where a write fails', async () => {
    const file = await fileDisk.open(join(root, 'file'), { create: true, dataSync: true });
    await file.close();
    await expect(writeFully(file, Buffer.alloc(1), 1, 0)).rejects.toMatchObject({ code: 'EBADF' });
  });

  it('renames over what was there, and removes', async () => {
    for (const name of ['a', 'b']) writeFileSync(join(root, name), name);
    await fileDisk.rename(join(root, 'a'), join(root, 'b'));
    await fileDisk.syncDirectory(root);
    expect(readFileSync(join(root, 'b'), 'utf8')).toBe('a');
    await fileDisk.remove(join(root, 'b'));
    expect(readdirSync(root)).toEqual([]);
  });
});

describe('a log on the disk of the machine', () => {
  it('comes back over many segments, and reads back, as it was written', async () => {
    const directory = join(root, 'node/wal');
    const first = await open(fileDisk, { directory });
    const entries = someEntries(120);
    await Promise.all(entries.map((entry) => append(first.wal, [entry], { hardState: Buffer.from('h') })));
    expect(texts(await first.wal.read(1, 120, 1e9))).toEqual(texts(entries));
    await first.wal.close();
    const second = await open(fileDisk, { directory, mustExist: true });
    expect(texts(second.entries)).toEqual(texts(entries));
    expect(second.hardState?.toString()).toBe('h');
    await append(second.wal, [Buffer.from('more')]);
    await second.wal.close();
    expect(readdirSync(directory).length).toBeGreaterThan(3);
  });

  it('is refused where its file was truncated', async () => {
    const directory = join(root, 'node/wal');
    const { wal } = await open(fileDisk, { directory });
    await append(wal, someEntries(1));
    await wal.close();
    truncateSync(join(directory, '0000000000000001.wal'), 1024);
    expect((await errorOf(open(fileDisk, { directory }))).code).toBe('WAL_DAMAGED');
  });

  it('holds entries of eight megabytes at the limits that a node has', async () => {
    const directory = join(root, 'node/wal');
    const { wal } = await open(fileDisk, { directory, limits: {} });
    const large = Buffer.alloc(8 * 1024 * 1024, 'large');
    for (let n = 0; n < 10; n++) await append(wal, [Buffer.from(`small ${n}`), large]);
    const [back] = await wal.read(20, 20, 1);
    expect(back?.equals(large)).toBe(true);
    await wal.close();
    const again = await open(fileDisk, { directory, limits: {} });
    expect(again.entries.map((bytes) => bytes.length)).toEqual(
      Array.from({ length: 20 }, (_, n) => (n % 2 ? large.length : 7)),
    );
    expect(again.report.segments).toBeGreaterThan(1);
    await again.wal.close();
  });

  it('stands beside a meta that outlives the process', async () => {
    const options = {
      disk: fileDisk,
      directory: join(root, 'node'),
      clusterName: 'demo',
      nodeId: 1,
      newDirectoryId: () => 42,
    };
    expect((await openMeta(options)).incarnation).toBe(1);
    expect((await openMeta(options)).incarnation).toBe(2);
    expect(readFileSync(join(root, 'node/meta'), 'utf8')).toMatch(
      /^raftkv meta 2\n\{.*"incarnation":2.*\}\n[0-9a-f]{8}\n$/,
    );
  });
});
