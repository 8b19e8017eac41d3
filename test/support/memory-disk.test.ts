import { describe, expect, it } from 'vitest';
import { MemoryDisk } from './memory-disk.ts';

const FOLDER = '/data';
const A = `${FOLDER}/a`;
const B = `${FOLDER}/b`;

async function create(disk: MemoryDisk, path: string): Promise<void> {
  await disk.makeDirectory(FOLDER);
  const file = await disk.open(path, { create: true, dataSync: false });
  await file.close();
}

/** All that the cache knew of names, and no folder was synced for, gets to the platter; or nothing of it does. */
const OUTCOMES = [
  { outcome: 'all', random: () => 0 },
  { outcome: 'nothing', random: () => 1 },
];

describe.each(OUTCOMES)('power loss that keeps $outcome of what was not synced', ({ random }) => {
  it('brings nothing back to a disk that was wiped, be it a name whose removal was not durable', async () => {
    const disk = new MemoryDisk();
    await create(disk, A);
    await disk.syncDirectory(FOLDER);
    await disk.remove(A);
    await create(disk, B);
    disk.wipeAll();
    disk.crash(random);
    expect(disk.paths()).toEqual([]);
  });

  it('does not bring back a file that was wiped before its name was durable', async () => {
    const disk = new MemoryDisk();
    await create(disk, A);
    disk.wipe(A);
    disk.crash(random);
    expect(disk.paths()).toEqual([]);
  });

  it('does not bring back a file that was wiped before its new name was durable', async () => {
    const disk = new MemoryDisk();
    await create(disk, A);
    await disk.syncDirectory(FOLDER);
    await disk.rename(A, B);
    disk.wipe(B);
    disk.crash(random);
    expect(disk.paths()).not.toContain(B);
  });

  it('keeps what was put in the place of a file whose name was not durable', async () => {
    const disk = new MemoryDisk();
    await create(disk, A);
    disk.plant(A, Buffer.from('planted'));
    disk.crash(random);
    expect(disk.contentOf(A).toString()).toBe('planted');
  });
});
