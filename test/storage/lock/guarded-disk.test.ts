import { beforeEach, describe, expect, it } from 'vitest';
import { type Disk, type DiskFile, writeFully } from '../../../src/storage/disk/disk.ts';
import { guardedDisk } from '../../../src/storage/lock/guarded-disk.ts';

let calls: string[];
let isHeld: boolean;
/** Called in the middle of each change. */
let meanwhile: () => void;
let disk: Disk;

beforeEach(() => {
  calls = [];
  isHeld = true;
  meanwhile = () => {};
  const call = (name: string) => async () => {
    calls.push(name);
    meanwhile();
  };
  const file: DiskFile = {
    write(_buffer, _offset, _length, _position, done) {
      calls.push('write');
      setImmediate(() => {
        meanwhile();
        done(null);
      });
    },
    read: async () => 7,
    size: async () => 9,
    sync: call('sync'),
    close: async () => void calls.push('close'),
  };
  const bare: Disk = {
    makeDirectory: call('makeDirectory'),
    list: async () => ['a'],
    open: async () => {
      await call('open')();
      return file;
    },
    rename: call('rename'),
    remove: call('remove'),
    syncDirectory: call('syncDirectory'),
  };
  disk = guardedDisk(bare, () => isHeld, '/data/node-1');
});

const open = () => disk.open('f', { create: true, dataSync: true });
const CHANGES: [string, () => Promise<unknown>][] = [
  ['makeDirectory', () => disk.makeDirectory('d')],
  ['open', open],
  ['rename', () => disk.rename('a', 'b')],
  ['remove', () => disk.remove('a')],
  ['syncDirectory', () => disk.syncDirectory('d')],
];

describe('the disk of a process that holds a lock', () => {
  it('does everything while the lock is held', async () => {
    for (const [, change] of CHANGES) await change();
    const file = await open();
    await writeFully(file, Buffer.alloc(1), 1, 0);
    await file.sync();
    expect([await file.read(Buffer.alloc(1), 0, 1, 0), await file.size(), await disk.list('d')]).toEqual([7, 9, ['a']]);
    await file.close();
    expect(calls.join()).toBe('makeDirectory,open,rename,remove,syncDirectory,open,write,sync,close');
  });

  it.each(CHANGES)(
    'begins no %s once it is lost, and does not report one as done that ended later',
    async (name, change) => {
      isHeld = false;
      const lost = { code: 'DATA_DIR_LOST', message: expect.stringContaining('/data/node-1') };
      await expect(change()).rejects.toMatchObject(lost);
      expect(calls).toEqual([]);
      isHeld = true;
      meanwhile = () => {
        isHeld = false;
      };
      await expect(change()).rejects.toMatchObject(lost);
      expect(calls).toEqual([name]);
    },
  );

  it('begins no write once it is lost, and calls back for none that ended later', async () => {
    const file = await open();
    const done: unknown[] = [];
    const write = () => file.write(Buffer.alloc(1), 0, 1, 0, (error) => done.push(error));
    meanwhile = () => {
      isHeld = false;
    };
    write();
    await new Promise(setImmediate);
    await new Promise(setImmediate);
    write();
    await new Promise(setImmediate);
    expect(calls).toEqual(['open', 'write']);
    expect(done).toEqual([]);
    await expect(file.sync()).rejects.toMatchObject({ code: 'DATA_DIR_LOST' });
  });
});
