import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { afterAll, describe, expect, it } from 'vitest';
import { RaftkvError } from '../../../src/base/errors.ts';
import { fileDisk } from '../../../src/storage/disk/file-disk.ts';
import { SNAPSHOT_PIECE_BYTES_MAX, snapshotName } from '../../../src/storage/snapshots/files.ts';
import { readSnapshotFile, readSnapshotHead } from '../../../src/storage/snapshots/reader.ts';
import { writeSnapshotFile } from '../../../src/storage/snapshots/writer.ts';
import { MemoryDisk } from '../../support/memory-disk.ts';
import { errorOf, waitUntilIdle } from '../wal/harness.ts';
import {
  ASIDE,
  chunksOf,
  configurationOf,
  DIRECTORY,
  loadAll,
  newestGood,
  openFolder,
  transfer,
  writeSnapshot,
} from './harness.ts';

const pathOf = (index: number, term = 3) => `${DIRECTORY}/${snapshotName(index, term)}`;
const filesIn = (disk: MemoryDisk) => disk.paths().filter((path) => path.startsWith(`${DIRECTORY}/`));

/** Two snapshots in one folder, as a crash before the removal of the older leaves them. */
async function folderOfTwo(): Promise<MemoryDisk> {
  const disk = new MemoryDisk();
  const snapshots = await openFolder(disk);
  await writeSnapshot(snapshots, 10);
  const older = disk.contentOf(pathOf(10));
  await writeSnapshot(snapshots, 20);
  disk.plant(pathOf(10), older);
  return disk;
}

describe('a folder of snapshots', () => {
  it('has none at first, and after a write the one that was written, also after a start', async () => {
    const disk = new MemoryDisk();
    const snapshots = await openFolder(disk);
    expect(snapshots.newest).toBe(null);
    const info = await writeSnapshot(snapshots, 10);
    expect(info).toEqual({
      index: 10,
      term: 3,
      configuration: configurationOf(10),
      byteLength: disk.contentOf(pathOf(10)).length,
      path: pathOf(10),
    });
    expect(snapshots.newest).toEqual(info);
    disk.crash(() => 0.99);
    const again = await openFolder(disk);
    expect(again.newest).toEqual(info);
    expect(await loadAll(again)).toEqual(chunksOf(10));
  });

  it('returns chunks far longer than its buffers', async () => {
    const disk = new MemoryDisk();
    const snapshots = await openFolder(disk);
    const chunks = [
      Buffer.alloc(3 << 20, 'abc'),
      Buffer.alloc(1),
      Buffer.alloc((1 << 18) - 9, 'd'),
      Buffer.alloc(1 << 20),
    ];
    await writeSnapshot(snapshots, 10, { chunks });
    const found = await loadAll(snapshots);
    expect(found.length).toBe(chunks.length);
    expect(found.every((chunk, place) => chunks[place]?.equals(chunk))).toBe(true);
  });

  it('syncs in steps while it writes, so that no long sync comes at the end', async () => {
    const disk = new MemoryDisk();
    let unsynced = 0;
    let most = 0;
    disk.fault = ({ kind, length }) => {
      if (kind === 'write') unsynced += length;
      if (kind === 'sync') unsynced = 0;
      most = Math.max(most, unsynced);
      return null;
    };
    const snapshots = await openFolder(disk);
    await writeSnapshot(snapshots, 10, { chunks: [Buffer.alloc(3 << 20), ...chunksOf(1, 20, 65536)] });
    expect(most).toBeLessThanOrEqual(1 << 20);
    const other = await openFolder(disk, { directory: '/other' });
    most = 0;
    await transfer(snapshots, other, 10, 3, 3 << 20);
    expect(most).toBeLessThanOrEqual(1 << 20);
  });

  it('keeps only the newest', async () => {
    const disk = new MemoryDisk();
    const snapshots = await openFolder(disk);
    for (const index of [10, 20, 30]) await writeSnapshot(snapshots, index);
    expect(filesIn(disk)).toEqual([pathOf(30)]);
    expect(snapshots.newest?.index).toBe(30);
  });

  it('forgets what was abandoned, and takes another at the same index', async () => {
    const disk = new MemoryDisk();
    const snapshots = await openFolder(disk);
    const writer = await snapshots.write({ index: 10, term: 3, configuration: Buffer.alloc(0) });
    await writer.write(Buffer.alloc(300_000));
    expect((await errorOf(snapshots.write({ index: 11, term: 3, configuration: Buffer.alloc(0) }))).code).toBe(
      'INVARIANT_BROKEN',
    );
    await writer.abandon();
    await writer.abandon();
    expect(filesIn(disk)).toEqual([]);
    await writeSnapshot(snapshots, 10);
    expect(await loadAll(snapshots)).toEqual(chunksOf(10));
  });

  it('abandons while a write is on its way', async () => {
    const held: (() => void)[] = [];
    const disk = new MemoryDisk();
    const snapshots = await openFolder(disk);
    const writer = await snapshots.write({ index: 10, term: 3, configuration: Buffer.alloc(0) });
    disk.schedule = (operation, complete) => {
      if (operation.kind === 'write') held.push(complete);
      else queueMicrotask(complete);
    };
    const writing = errorOf(writer.write(Buffer.alloc(900_000)));
    await waitUntilIdle();
    const abandoning = writer.abandon();
    await waitUntilIdle();
    expect(filesIn(disk)).toHaveLength(1);
    expect(held).toHaveLength(1);
    held[0]?.();
    await abandoning;
    expect((await writing).code).toBe('INVARIANT_BROKEN');
    expect(filesIn(disk)).toEqual([]);
  });

  it('closes with nothing left of what was under way', async () => {
    const disk = new MemoryDisk();
    const snapshots = await openFolder(disk);
    await writeSnapshot(snapshots, 10);
    await (await snapshots.write({ index: 20, term: 3, configuration: Buffer.alloc(0) })).write(Buffer.alloc(10));
    await (await snapshots.receive(30, 3)).append(Buffer.alloc(10));
    await snapshots.close();
    expect(filesIn(disk)).toEqual([pathOf(10)]);
  });

  it('drops what an interrupted writer or receiver left, and leaves alone what is not its own', async () => {
    const disk = new MemoryDisk();
    const snapshots = await openFolder(disk);
    await writeSnapshot(snapshots, 10);
    for (const name of [`${pathOf(20)}.tmp`, `${pathOf(30)}.part`, `${DIRECTORY}/notes.txt`]) {
      disk.plant(name, Buffer.from('x'));
    }
    await openFolder(disk);
    expect(filesIn(disk)).toEqual([pathOf(10), `${DIRECTORY}/notes.txt`]);
  });

  it('refuses a file of another cluster, and a format of the future', async () => {
    const disk = new MemoryDisk();
    await writeSnapshot(await openFolder(disk), 10);
    expect((await errorOf(openFolder(disk, { clusterName: 'other' }))).code).toBe('DATA_DIR_FOREIGN');
    // As version 2 would write it: its magic, version and CRC keep their places.
    const future = disk.contentOf(pathOf(10));
    future.writeUInt32LE(2, 8);
    future.writeUInt32LE(crc32(future.subarray(0, 508)), 508);
    disk.plant(pathOf(10), future);
    expect((await errorOf(openFolder(disk))).code).toBe('FORMAT_UNSUPPORTED');
  });
});

describe('damage', () => {
  it('of any one byte is found by a start or a load', async () => {
    const disk = new MemoryDisk();
    await writeSnapshot(await openFolder(disk), 10, { chunks: chunksOf(10, 3, 150) });
    const content = disk.contentOf(pathOf(10));
    for (let byte = 0; byte < content.length; byte++) {
      for (const bit of [byte % 8, (byte * 3 + 5) % 8]) {
        const rotten = disk.clone();
        rotten.flipBit(pathOf(10), byte * 8 + bit);
        const snapshots = await openFolder(rotten);
        expect(await newestGood(snapshots), `byte ${byte}`).toBe(null);
        expect(filesIn(rotten)).toEqual([]);
        expect(rotten.paths()).toEqual([`${ASIDE}/${snapshotName(10, 3)}`]);
      }
    }
  });

  it('of its length is found, however much is missing or too much', async () => {
    const disk = new MemoryDisk();
    await writeSnapshot(await openFolder(disk), 10, { chunks: chunksOf(10, 3, 150) });
    const content = disk.contentOf(pathOf(10));
    for (let length = 0; length < content.length; length++) {
      disk.plant(pathOf(10), content.subarray(0, length));
      expect((await errorOf(readSnapshotFile(disk, pathOf(10), () => {}))).code, `${length}`).toBe('SNAPSHOT_DAMAGED');
    }
    for (const extra of [1, 36, 512]) {
      disk.plant(pathOf(10), Buffer.concat([content, Buffer.alloc(extra)]));
      expect((await errorOf(readSnapshotFile(disk, pathOf(10), () => {}))).code, `+${extra}`).toBe('SNAPSHOT_DAMAGED');
    }
  });

  it('is found where chunks of this file change places, or come from another', async () => {
    const disk = new MemoryDisk();
    const chunks = [Buffer.alloc(100, 1), Buffer.alloc(100, 2)];
    await writeSnapshot(await openFolder(disk), 10, { chunks });
    const content = disk.contentOf(pathOf(10));
    const start = 512 + configurationOf(10).length;
    const [first, second] = [content.subarray(start, start + 108), content.subarray(start + 108, start + 216)];
    const swapped = Buffer.concat([content.subarray(0, start), second, first, content.subarray(start + 216)]);
    disk.plant(pathOf(10), swapped);
    expect((await errorOf(readSnapshotFile(disk, pathOf(10), () => {}))).code).toBe('SNAPSHOT_DAMAGED');
    await writeSnapshot(await openFolder(disk, { directory: '/other' }), 11, { chunks });
    const other = disk.contentOf(`/other/${snapshotName(11, 3)}`);
    const mixed = Buffer.concat([content.subarray(0, start), other.subarray(start)]);
    disk.plant(pathOf(10), mixed);
    expect((await errorOf(readSnapshotFile(disk, pathOf(10), () => {}))).code).toBe('SNAPSHOT_DAMAGED');
  });

  it('is found where a chunk was left out and all else made to fit', async () => {
    const disk = new MemoryDisk();
    await writeSnapshot(await openFolder(disk), 10, { chunks: [Buffer.alloc(100, 1), Buffer.alloc(100, 2)] });
    const content = disk.contentOf(pathOf(10));
    const start = 512 + configurationOf(10).length;
    const one = await openFolder(disk, { directory: '/other' });
    await writeSnapshot(one, 10, { chunks: [Buffer.alloc(100, 1)] });
    const ofOne = disk.contentOf(`/other/${snapshotName(10, 3)}`);
    // The trailer of one chunk, behind two; and the other way round.
    for (const bytes of [
      Buffer.concat([content.subarray(0, start + 216), ofOne.subarray(start + 108)]),
      Buffer.concat([content.subarray(0, start + 108), content.subarray(start + 216)]),
    ]) {
      const trailer = bytes.subarray(bytes.length - 36);
      trailer.writeUInt32LE(bytes.length, 24);
      trailer.writeUInt32LE(crc32(trailer.subarray(4)), 0);
      disk.plant(pathOf(10), bytes);
      expect((await errorOf(readSnapshotFile(disk, pathOf(10), () => {}))).message).toContain('trailer');
    }
  });

  it('is found where the trailer is that of another file of the same length', async () => {
    const disk = new MemoryDisk();
    await writeSnapshot(await openFolder(disk), 10, { chunks: [Buffer.alloc(100, 1)] });
    await writeSnapshot(await openFolder(disk, { directory: '/other' }), 10, { chunks: [Buffer.alloc(100, 2)] });
    const [content, other] = [disk.contentOf(pathOf(10)), disk.contentOf(`/other/${snapshotName(10, 3)}`)];
    disk.plant(pathOf(10), Buffer.concat([content.subarray(0, -36), other.subarray(-36)]));
    expect((await errorOf(readSnapshotFile(disk, pathOf(10), () => {}))).message).toContain('trailer');
  });

  it('is found by a start already where bytes are missing in the middle', async () => {
    const disk = new MemoryDisk();
    await writeSnapshot(await openFolder(disk), 10);
    const content = disk.contentOf(pathOf(10));
    disk.plant(pathOf(10), Buffer.concat([content.subarray(0, 900), content.subarray(901)]));
    expect((await openFolder(disk)).newest).toBe(null);
  });

  it('hands over no chunk that does not verify', async () => {
    const disk = new MemoryDisk();
    const chunks = chunksOf(10, 6, 200);
    await writeSnapshot(await openFolder(disk), 10, { chunks });
    disk.flipBit(pathOf(10), (disk.contentOf(pathOf(10)).length - 300) * 8);
    const found: Buffer[] = [];
    await errorOf(readSnapshotFile(disk, pathOf(10), (chunk) => void found.push(chunk)));
    expect(found.length).toBeGreaterThan(2);
    expect(found).toEqual(chunks.slice(0, found.length));
  });

  it('of the newest leaves the next older one, which is loaded instead', async () => {
    for (const byte of [3, 600, 700]) {
      const disk = await folderOfTwo();
      disk.flipBit(pathOf(20), byte * 8);
      const rotten = disk.contentOf(pathOf(20));
      const errors: RaftkvError[] = [];
      const onDamage = async (error: RaftkvError) => {
        // Before anything is changed.
        expect(disk.contentOf(pathOf(20))).toEqual(rotten);
        errors.push(error);
        return ASIDE;
      };
      const snapshots = await openFolder(disk, { onDamage });
      expect(await newestGood(snapshots)).toEqual({ index: 10, chunks: chunksOf(10) });
      expect(errors.map(({ code }) => code)).toEqual(['SNAPSHOT_DAMAGED']);
      expect(disk.contentOf(`${ASIDE}/${snapshotName(20, 3)}`)).toEqual(rotten);
      disk.crash(() => 0.99);
      expect(filesIn(disk)).toEqual([pathOf(10)]);
      await writeSnapshot(snapshots, 30);
    }
  });

  it('is refused, and nothing touched, where nothing may be moved', async () => {
    for (const byte of [3, 700]) {
      const disk = await folderOfTwo();
      disk.plant(`${pathOf(40)}.tmp`, Buffer.from('x'));
      disk.flipBit(pathOf(20), byte * 8);
      const before = disk.paths();
      const opening = openFolder(disk, { onDamage: null });
      const error = await errorOf(opening.then(loadAll));
      expect(error.code).toBe('SNAPSHOT_DAMAGED');
      expect(error.message).toContain(pathOf(20));
      expect(error.remedy).not.toBe('');
      if (byte === 3) expect(disk.paths()).toEqual(before);
      expect(disk.contentOf(pathOf(20)).length).toBeGreaterThan(0);
    }
  });

  it('is a file under the name of another', async () => {
    const disk = new MemoryDisk();
    await writeSnapshot(await openFolder(disk), 10);
    disk.plant(pathOf(99), disk.contentOf(pathOf(10)));
    const snapshots = await openFolder(disk);
    expect(snapshots.newest?.index).toBe(10);
    expect(disk.paths()).toEqual([`${ASIDE}/${snapshotName(99, 3)}`, pathOf(10)]);
  });

  it('that only the reader of the chunks can see counts as well; its other errors do not', async () => {
    const disk = await folderOfTwo();
    const snapshots = await openFolder(disk);
    const failing = (error: Error) => () => Promise.reject(error);
    await expect(snapshots.load(failing(new Error('mine')))).rejects.toThrow('mine');
    expect(snapshots.newest?.index).toBe(20);
    const damage = new RaftkvError('SNAPSHOT_DAMAGED', 'the counts do not agree');
    expect((await errorOf(snapshots.load(failing(damage)))).code).toBe('SNAPSHOT_DAMAGED');
    expect(snapshots.newest?.index).toBe(10);
  });

  it('is not what a failing disk is', async () => {
    const disk = await folderOfTwo();
    const snapshots = await openFolder(disk);
    disk.failOnce('EIO', ({ kind }) => kind === 'read');
    await expect(loadAll(snapshots)).rejects.toMatchObject({ code: 'EIO' });
    expect(filesIn(disk)).toEqual([pathOf(10), pathOf(20)]);
    expect(snapshots.newest?.index).toBe(20);
  });
});

describe('what a crash kept from being removed', () => {
  it('goes once the newest has been loaded whole, and not before', async () => {
    const disk = await folderOfTwo();
    const snapshots = await openFolder(disk);
    expect(filesIn(disk)).toEqual([pathOf(10), pathOf(20)]);
    expect(await loadAll(snapshots)).toEqual(chunksOf(20));
    expect(filesIn(disk)).toEqual([pathOf(20)]);
  });
});

describe('a transfer', () => {
  it('reads pieces at any place of the newest, and null of any other', async () => {
    const disk = new MemoryDisk();
    const snapshots = await openFolder(disk);
    await writeSnapshot(snapshots, 10, { chunks: [Buffer.alloc(SNAPSHOT_PIECE_BYTES_MAX, 'xyz')] });
    const content = disk.contentOf(pathOf(10));
    const byteLength = content.length;
    for (const [offset, length] of [
      [0, 10],
      [5, 600],
      [byteLength - 3, 10],
      [byteLength, 10],
      [byteLength + 9, 1],
    ] as const) {
      const piece = await snapshots.read(10, 3, offset, length);
      expect(piece?.byteLength).toBe(byteLength);
      expect(piece?.bytes.equals(content.subarray(offset, offset + length))).toBe(true);
    }
    expect((await snapshots.read(10, 3, 0, 1e12))?.bytes.length).toBe(SNAPSHOT_PIECE_BYTES_MAX);
    expect(await snapshots.read(10, 4, 0, 10)).toBe(null);
    expect(await snapshots.read(9, 3, 0, 10)).toBe(null);
  });

  it('keeps its file while it holds it, however many newer ones come', async () => {
    const disk = new MemoryDisk();
    const snapshots = await openFolder(disk);
    await writeSnapshot(snapshots, 10);
    const content = disk.contentOf(pathOf(10));
    expect(snapshots.hold(10, 3)).toBe(true);
    expect(snapshots.hold(10, 3)).toBe(true);
    expect(snapshots.hold(11, 3)).toBe(false);
    for (const index of [20, 30]) await writeSnapshot(snapshots, index);
    expect(filesIn(disk)).toEqual([pathOf(10), pathOf(30)]);
    expect((await snapshots.read(10, 3, 0, 1e6))?.bytes).toEqual(content);
    snapshots.release(10, 3);
    await waitUntilIdle();
    expect((await snapshots.read(10, 3, 0, 1e6))?.bytes).toEqual(content);
    snapshots.release(10, 3);
    await waitUntilIdle();
    expect(filesIn(disk)).toEqual([pathOf(30)]);
    expect(await snapshots.read(10, 3, 0, 10)).toBe(null);
    expect(snapshots.hold(10, 3)).toBe(false);
    // The newest stays without being held.
    expect(snapshots.hold(30, 3)).toBe(true);
    snapshots.release(30, 3);
    snapshots.release(30, 3);
    await waitUntilIdle();
    expect(filesIn(disk)).toEqual([pathOf(30)]);
    await writeSnapshot(snapshots, 40);
    expect(filesIn(disk)).toEqual([pathOf(40)]);
  });

  it('is never robbed of its file between two pieces', async () => {
    const disk = new MemoryDisk();
    const snapshots = await openFolder(disk);
    await writeSnapshot(snapshots, 10);
    const held: (() => void)[] = [];
    disk.schedule = (operation, complete) => {
      if (operation.kind === 'open' && operation.path === pathOf(10)) held.push(complete);
      else queueMicrotask(complete);
    };
    const reading = snapshots.read(10, 3, 0, 100);
    await writeSnapshot(snapshots, 20);
    held[0]?.();
    expect((await reading)?.bytes.length).toBe(100);
    await waitUntilIdle();
    expect(filesIn(disk)).toEqual([pathOf(20)]);
  });

  it('says so where an old file could not be removed, and the next snapshot meets the failure', async () => {
    const disk = new MemoryDisk();
    const logged: string[] = [];
    const logger = {
      debug() {},
      info() {},
      warn() {},
      error: (_: object, message: string) => void logged.push(message),
    };
    const snapshots = await openFolder(disk, { logger });
    await writeSnapshot(snapshots, 10);
    snapshots.hold(10, 3);
    await writeSnapshot(snapshots, 20);
    disk.fault = ({ kind }) => (kind === 'remove' ? 'EIO' : null);
    snapshots.release(10, 3);
    await waitUntilIdle();
    expect(logged).toHaveLength(1);
    await expect(writeSnapshot(snapshots, 30)).rejects.toMatchObject({ code: 'EIO' });
    expect(snapshots.newest?.index).toBe(30);
    disk.fault = () => null;
    await writeSnapshot(snapshots, 40);
    expect(filesIn(disk)).toEqual([pathOf(40)]);
  });

  it('brings the same file, which is the newest from then on', async () => {
    const [there, here] = [new MemoryDisk(), new MemoryDisk()];
    const [from, to] = [await openFolder(there), await openFolder(here)];
    await writeSnapshot(to, 5);
    await writeSnapshot(from, 10);
    const info = await transfer(from, to, 10, 3);
    expect(info).toEqual(from.newest);
    expect(to.newest).toEqual(info);
    expect(filesIn(here)).toEqual([pathOf(10)]);
    expect(here.contentOf(pathOf(10))).toEqual(there.contentOf(pathOf(10)));
    expect(await loadAll(to)).toEqual(chunksOf(10));
  });

  it('goes on where it was when its link was lost, and begins again for another file', async () => {
    const disk = new MemoryDisk();
    const from = await openFolder(new MemoryDisk());
    const to = await openFolder(disk);
    await writeSnapshot(from, 10);
    const first = await to.receive(10, 3);
    expect(first.byteLength).toBe(0);
    await first.append((await from.read(10, 3, 0, 1234))?.bytes ?? Buffer.alloc(0));
    expect((await to.receive(10, 3)).byteLength).toBe(1234);
    // Asked again while a piece is on its way to the disk: it counts.
    disk.schedule = (operation, complete) => {
      if (operation.kind === 'write') setImmediate(complete);
      else queueMicrotask(complete);
    };
    const appending = first.append((await from.read(10, 3, 1234, 100))?.bytes ?? Buffer.alloc(0));
    expect((await to.receive(10, 3)).byteLength).toBe(1334);
    await appending;
    await transfer(from, to, 10, 3);
    expect(await loadAll(to)).toEqual(chunksOf(10));

    const abandoned = await to.receive(20, 3);
    await abandoned.append(Buffer.alloc(100));
    const other = await to.receive(20, 4);
    expect(other.byteLength).toBe(0);
    expect((await errorOf(abandoned.append(Buffer.alloc(1)))).code).toBe('INVARIANT_BROKEN');
    expect(filesIn(disk)).toEqual([pathOf(10), `${pathOf(20, 4)}.part`]);
    await other.abandon();
    expect((await to.receive(20, 4)).byteLength).toBe(0);
  });

  it('installs nothing that does not verify, and can begin again', async () => {
    const there = new MemoryDisk();
    const disk = new MemoryDisk();
    const from = await openFolder(there);
    const to = await openFolder(disk);
    await writeSnapshot(to, 5);
    await writeSnapshot(from, 10, { chunks: chunksOf(10, 3, 100) });
    const content = there.contentOf(pathOf(10));
    const bring = async (bytes: Buffer, index = 10, term = 3) => {
      const receiver = await to.receive(index, term);
      await receiver.append(bytes);
      return receiver.finish();
    };
    for (let byte = 0; byte < content.length; byte += 7) {
      const rotten = Buffer.from(content);
      rotten.writeUInt8(rotten.readUInt8(byte) ^ 0x10, byte);
      expect((await errorOf(bring(rotten))).code).toBe('SNAPSHOT_DAMAGED');
      expect(filesIn(disk)).toEqual([pathOf(5)]);
    }
    for (const bytes of [Buffer.alloc(0), content.subarray(0, -1), Buffer.concat([content, Buffer.alloc(1)])]) {
      expect((await errorOf(bring(bytes))).code).toBe('SNAPSHOT_DAMAGED');
    }
    expect((await errorOf(bring(content, 11))).code).toBe('SNAPSHOT_DAMAGED');
    expect((await errorOf(bring(content, 10, 4))).code).toBe('SNAPSHOT_DAMAGED');
    const foreign = await openFolder(there, { directory: '/foreign', clusterName: 'other' });
    await writeSnapshot(foreign, 10);
    expect((await errorOf(bring(there.contentOf(`/foreign/${snapshotName(10, 3)}`)))).code).toBe('DATA_DIR_FOREIGN');
    expect(to.newest?.index).toBe(5);
    expect((await bring(content)).index).toBe(10);
  });

  it('and a snapshot of its own leave the newer of the two, whichever ends last', async () => {
    for (const [own, received] of [
      [20, 30],
      [30, 20],
      [20, 20],
    ] as const) {
      const disk = new MemoryDisk();
      const from = await openFolder(new MemoryDisk());
      const to = await openFolder(disk);
      await writeSnapshot(from, received);
      const writer = await to.write({ index: own, term: 3, configuration: configurationOf(own) });
      await transfer(from, to, received, 3);
      for (const chunk of chunksOf(own)) await writer.write(chunk);
      expect((await writer.finish()).index).toBe(Math.max(own, received));
      expect(to.newest?.index).toBe(Math.max(own, received));
      expect(filesIn(disk)).toEqual([pathOf(Math.max(own, received))]);
      expect(await loadAll(to)).toEqual(chunksOf(Math.max(own, received)));
      await writeSnapshot(to, 40);
    }
  });
});

describe('a full disk', () => {
  it('ends a snapshot with nothing left of it, and the next succeeds once there is room', async () => {
    const chunks = chunksOf(20, 8, 300_000);
    for (const kind of ['write', 'sync', 'rename'] as const) {
      for (let nth = 1; nth <= 3; nth++) {
        const disk = new MemoryDisk();
        const snapshots = await openFolder(disk);
        await writeSnapshot(snapshots, 10);
        let seen = 0;
        disk.failOnce('ENOSPC', (operation) => operation.kind === kind && ++seen === (kind === 'rename' ? 1 : nth));
        await expect(writeSnapshot(snapshots, 20, { chunks }), kind).rejects.toMatchObject({ code: 'ENOSPC' });
        expect(filesIn(disk)).toEqual([pathOf(10)]);
        expect(await loadAll(snapshots)).toEqual(chunksOf(10));
        await writeSnapshot(snapshots, 21);
        expect(await loadAll(snapshots)).toEqual(chunksOf(21));
      }
    }
  });

  it('ends a transfer the same way', async () => {
    const from = await openFolder(new MemoryDisk());
    await writeSnapshot(from, 20, { chunks: chunksOf(20, 2, 3_000_000) });
    for (const kind of ['write', 'sync', 'rename'] as const) {
      const disk = new MemoryDisk();
      const to = await openFolder(disk);
      await writeSnapshot(to, 10);
      disk.failOnce('ENOSPC', (operation) => operation.kind === kind);
      await expect(transfer(from, to, 20, 3, 1e6), kind).rejects.toMatchObject({ code: 'ENOSPC' });
      expect(filesIn(disk)).toEqual([pathOf(10)]);
      expect(to.newest?.index).toBe(10);
      await transfer(from, to, 20, 3, 1e6);
      expect(filesIn(disk)).toEqual([pathOf(20)]);
    }
  });

  it('really: with as much room as there is', async () => {
    const disk = new MemoryDisk();
    const snapshots = await openFolder(disk);
    const { byteLength } = await writeSnapshot(snapshots, 10);
    disk.capacityBytes = byteLength * 2 - 1;
    await expect(writeSnapshot(snapshots, 20)).rejects.toMatchObject({ code: 'ENOSPC' });
    expect(filesIn(disk)).toEqual([pathOf(10)]);
  });
});

describe('any other failure of the disk', () => {
  it('is passed on as it is, final for that file, and leaves the newest what it was', async () => {
    for (const kind of ['open', 'write', 'sync', 'close', 'rename'] as const) {
      const disk = new MemoryDisk();
      const snapshots = await openFolder(disk);
      await writeSnapshot(snapshots, 10);
      let files = 0;
      disk.failOnce('EIO', (operation) => {
        if (operation.path.endsWith('.tmp')) files++;
        return operation.path.endsWith('.tmp') && operation.kind === kind;
      });
      await expect(writeSnapshot(snapshots, 20), kind).rejects.toMatchObject({ code: 'EIO' });
      expect(files).toBeGreaterThan(0);
      expect(snapshots.newest?.index).toBe(10);
      expect((await newestGood(await openFolder(disk)))?.index).toBe(10);
    }
  });

  it('lets nothing follow a write that failed', async () => {
    const disk = new MemoryDisk();
    const snapshots = await openFolder(disk);
    const receiver = await snapshots.receive(10, 3);
    disk.failOnce('EIO', ({ kind }) => kind === 'write');
    await expect(receiver.append(Buffer.alloc(10))).rejects.toMatchObject({ code: 'EIO' });
    expect((await errorOf(receiver.append(Buffer.alloc(10)))).code).toBe('INVARIANT_BROKEN');
    expect((await errorOf(receiver.finish())).code).toBe('INVARIANT_BROKEN');
  });
});

describe("on the machine's own disk", () => {
  const root = mkdtempSync(join(tmpdir(), 'raftkv-snapshots-'));
  afterAll(() => rmSync(root, { recursive: true, force: true }));

  it('a snapshot is written, sent, loaded, replaced, and moved aside where it is damaged', async () => {
    const aside = join(root, 'damaged');
    const at = (name: string) => openFolder(fileDisk, { directory: join(root, name), onDamage: async () => aside });
    const [from, to] = [await at('from'), await at('to')];
    await writeSnapshot(to, 5);
    const chunks = chunksOf(10, 40, 65_536);
    await writeSnapshot(from, 10, { chunks });
    await transfer(from, to, 10, 3, 300_000);
    expect(readdirSync(join(root, 'to'))).toEqual([snapshotName(10, 3)]);
    const again = await at('to');
    const found = await loadAll(again);
    expect(found.length).toBe(chunks.length);
    expect(found.every((chunk, place) => chunks[place]?.equals(chunk))).toBe(true);
    const path = join(root, 'to', snapshotName(10, 3));
    const bytes = readFileSync(path);
    bytes.writeUInt8(bytes.readUInt8(1_000_000) ^ 1, 1_000_000);
    writeFileSync(path, bytes);
    expect(await newestGood(again)).toBe(null);
    expect(readdirSync(join(root, 'to'))).toEqual([]);
    expect(readdirSync(aside)).toEqual([snapshotName(10, 3)]);
  });
});

describe('snapshot files for tools', () => {
  it('are copied under another head, chunk by chunk', async () => {
    const disk = new MemoryDisk();
    await writeSnapshot(await openFolder(disk), 10);
    await disk.makeDirectory('/new');
    disk.plant('/new/copy.tmp', Buffer.from('left by an interrupted run'));
    const { term } = await readSnapshotHead(disk, pathOf(10));
    const head = { index: 10, term, configuration: Buffer.from('other'), clusterName: 'new' };
    await writeSnapshotFile(disk, '/new/copy', head, (write) => readSnapshotFile(disk, pathOf(10), write));
    const found: Buffer[] = [];
    const read = await readSnapshotFile(disk, '/new/copy', (chunk) => void found.push(chunk));
    expect(read).toMatchObject({ ...head, chunks: 4 });
    expect(found).toEqual(chunksOf(10));
    expect(disk.paths().filter((path) => path.startsWith('/new'))).toEqual(['/new/copy']);
  });

  it('are read with one chunk in flight at a time', async () => {
    const disk = new MemoryDisk();
    await writeSnapshot(await openFolder(disk), 10);
    let open = 0;
    await readSnapshotFile(disk, pathOf(10), async () => {
      expect(++open).toBe(1);
      await waitUntilIdle();
      open--;
    });
  });

  it('are not left behind where anything fails', async () => {
    const disk = new MemoryDisk();
    await disk.makeDirectory('/new');
    const head = { index: 1, term: 1, configuration: Buffer.alloc(0), clusterName: 'new' };
    const failing = writeSnapshotFile(disk, '/new/f', head, async (write) => {
      await write(Buffer.from('x'));
      throw new Error('mine');
    });
    await expect(failing).rejects.toThrow('mine');
    expect(disk.paths()).toEqual([]);
    disk.failOnce('EIO', ({ kind }) => kind === 'sync');
    await expect(writeSnapshotFile(disk, '/new/f', head, async () => {})).rejects.toMatchObject({ code: 'EIO' });
    expect(disk.paths()).toEqual([]);
  });
});
