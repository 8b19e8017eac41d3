import type { Mutant } from './mutant.ts';

/** Faults between the log and the platter. */
export const storageMutants: readonly Mutant[] = [
  {
    name: 'reply-before-sync',
    fault: 'takes a write for durable once it is in the page cache',
    file: 'storage/segment-files.ts',
    find: `  const durable = await disk.open(path, { create: false, dataSync: true });
  const { saltCrc }`,
    replace: `  const durable = await disk.open(path, { create: false, dataSync: false });
  const { saltCrc }`,
  },
  {
    name: 'done-before-write',
    fault: 'reports a write as done when it is queued',
    file: 'storage/segmented-wal.ts',
    find: '    this.#waiting.push(write);',
    replace: '    this.#waiting.push({ ...write, done: () => {} });\n    this.#clock.after(0, write.done);',
  },
  {
    name: 'failed-write-ignored',
    fault: 'goes on after a failed write as if it had succeeded (fsyncgate)',
    file: 'storage/segmented-wal.ts',
    find: '    if (error !== null) {',
    replace: "    if (error !== null && error.message === '') {",
  },
  {
    name: 'read-page-cache-as-durable',
    fault: 'trusts at a start what may be in the page cache only',
    file: 'storage/wal-recovery.ts',
    find: '    await this.#makeDurable(segment, spares);',
    replace: '',
  },
  {
    name: 'torn-is-damage',
    fault: 'takes a write torn by a power cut for damage and stays down (etcd 11488)',
    file: 'storage/wal-recovery.ts',
    find: '    const torn = countBlankSectors(window, start, paddedEnd) > header.blankSectors;',
    replace: '    const torn = header.blankSectors < 0;',
  },
  {
    name: 'torn-is-whole',
    fault: 'takes a torn record for a whole one',
    file: 'storage/wal-format.ts',
    find: '  return crc32(buffer.subarray(offset + 4, offset + length), chain) === buffer.readUInt32LE(offset) ? length : 0;',
    replace: '  return chain >= 0 ? length : 0;',
  },
  {
    name: 'remains-not-cut',
    fault: 'leaves what a torn write left behind where the next writes go',
    file: 'storage/wal-recovery.ts',
    find: '      await writeZeros(cut.plain, from, to);\n',
    replace: '',
  },
  {
    name: 'damage-is-torn',
    fault: 'silently cuts its log where durable data is damaged',
    file: 'storage/wal-recovery.ts',
    find: "    if (judgement.kind === 'invalid' && !judgement.torn) throw walDamaged(segment.path, position, what);\n",
    replace: '',
  },
  {
    name: 'segment-unsynced',
    fault: 'gives a new segment its name before its content is durable',
    file: 'storage/segment-files.ts',
    find: '  await plain.sync();\n  await disk.rename(temporary, path);',
    replace: '  await disk.rename(temporary, path);',
  },
  {
    name: 'directory-unsynced',
    fault: 'does not sync the folder of a new segment (etcd 6368)',
    file: 'storage/segment-files.ts',
    find: '  await disk.rename(temporary, path);\n  await disk.syncDirectory(directory);\n',
    replace: '  await disk.rename(temporary, path);\n',
  },
  {
    name: 'meta-unsynced',
    fault: 'replaces its identity by a file that is not durable',
    file: 'storage/whole-file.ts',
    find: '  await file.sync();\n',
    replace: '',
  },
  {
    name: 'meta-directory-unsynced',
    fault: 'may have its boot count go back after a power cut',
    file: 'storage/whole-file.ts',
    find: '  await disk.syncDirectory(directory);\n',
    replace: '',
  },
  {
    name: 'stale-locations',
    fault: 'reads back an entry where an earlier one of the same index was',
    file: 'storage/entry-locations.ts',
    find: '    this.truncate(index - 1);\n    if',
    replace: '    if (index <= this.lastIndex) return;\n    if',
  },
  {
    name: 'hard-state-lost-at-segment-end',
    fault: 'remembers in a new segment an older term and vote than in the one before',
    file: 'storage/segmented-wal.ts',
    find: '      this.#hardState = Buffer.from(hardState);',
    replace: '      this.#hardState ??= Buffer.from(hardState);',
  },
  {
    name: 'zeros-not-durable',
    fault: 'does not make sure of the zeros ahead of the log',
    file: 'storage/segment-files.ts',
    find: `  await writeZeros(segment.plain, segment.filledTo, to);
  await segment.plain.sync();`,
    replace: '  await writeZeros(segment.plain, segment.filledTo, to);',
  },
];
