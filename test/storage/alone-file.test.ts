import { expect, it } from 'vitest';
import { readAlone, writeAlone } from '../../src/storage/meta.ts';
import { MemoryDisk } from '../support/memory-disk.ts';
import { seededRandom } from '../support/random.ts';

const FOLDER = '/node';

it('whether a node is alone is known once it was persisted, and what was persisted last counts', async () => {
  const disk = new MemoryDisk();
  await disk.makeDirectory(FOLDER);
  expect(await readAlone(disk, FOLDER)).toBeNull();
  for (const alone of [true, true, false, true]) {
    await writeAlone(disk, FOLDER, alone);
    expect(await readAlone(disk, FOLDER)).toBe(alone);
  }
});

it('whether a node is alone survives power loss once it was persisted', async () => {
  for (let seed = 1; seed <= 50; seed++) {
    const disk = new MemoryDisk();
    await disk.makeDirectory(FOLDER);
    await writeAlone(disk, FOLDER, true);
    await writeAlone(disk, FOLDER, false);
    disk.crash(seededRandom(seed));
    expect(await readAlone(disk, FOLDER)).toBe(false);
  }
});

it('whether a node is alone is unknown where the file is damaged', async () => {
  for (let bit = 0; bit < 32; bit++) {
    const disk = new MemoryDisk();
    await disk.makeDirectory(FOLDER);
    await writeAlone(disk, FOLDER, true);
    disk.flipBit(`${FOLDER}/alone`, bit);
    expect(await readAlone(disk, FOLDER)).toBeNull();
  }
});
