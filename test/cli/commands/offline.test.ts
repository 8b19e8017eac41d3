import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { systemClock } from '../../../src/base/clock.ts';
import { silentLogger } from '../../../src/base/logger.ts';
import { logDumpCommand, logVerifyCommand } from '../../../src/cli/commands/log.ts';
import { recoverCommand } from '../../../src/cli/commands/recover.ts';
import {
  readBackup,
  snapshotInspectCommand,
  snapshotRestoreCommand,
  snapshotSaveCommand,
} from '../../../src/cli/commands/snapshot.ts';
import { UsageError } from '../../../src/cli/terminal/output.ts';
import { BatchBuilder, stampBatchTime } from '../../../src/kv/batch.ts';
import { StateMachine } from '../../../src/kv/state-machine.ts';
import { Op } from '../../../src/kv/types.ts';
import { buildNode } from '../../../src/offline/build.ts';
import { lockForTool, readOnlyDisk } from '../../../src/offline/directory.ts';
import { examineNode } from '../../../src/offline/examination.ts';
import { configurationOf, decodeConfiguration, encodeConfiguration } from '../../../src/raft/state/configuration.ts';
import { ENTRY_HEADER_BYTES, sealEntry } from '../../../src/raft/state/entry.ts';
import { encodeHardState } from '../../../src/replica/log/persister.ts';
import { fileDisk } from '../../../src/storage/disk/file-disk.ts';
import { openWal } from '../../../src/storage/wal/wal.ts';
import { commandOf } from '../../support/write-command.ts';
import { createFakeAdmin, type FakeAdmin } from './fake-admin.ts';

/** Tools on real files of small nodes, each of which a snapshot and a log behind it make up. */

const SEGMENT_BYTES = 32 * 1024 * 1024;
const TIME_MS = 1_700_000_000_000;

let folder: string;
let config: string;
let output: string;
let admin: FakeAdmin | undefined;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'raftkv-offline-'));
  config = join(folder, 'cluster.json');
  output = '';
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
    output += String(text);
    return true;
  });
  writeConfig('demo', [1, 2, 3]);
});
afterEach(async () => {
  vi.restoreAllMocks();
  rmSync(folder, { recursive: true });
  await admin?.close();
  admin = undefined;
});

function writeConfig(cluster: string, ids: readonly number[], adminPort = 1): void {
  const nodes = ids.map((id) => ({
    id,
    host: '127.0.0.1',
    clientPort: 20_000 + id,
    peerPort: 21_000 + id,
    adminPort: id === 1 && adminPort !== 1 ? adminPort : 22_000 + id,
  }));
  writeFileSync(config, JSON.stringify({ cluster, nodes, walSegmentBytes: SEGMENT_BYTES }));
}

const nodeFolder = (id: number) => join(folder, 'data', `node-${id}`);

/** `set` commands of node 2 as the payload of an entry. */
function batchOf(sequence: number, items: Record<string, string>): Buffer {
  const builder = new BatchBuilder(ENTRY_HEADER_BYTES);
  for (const [key, value] of Object.entries(items)) {
    builder.add(commandOf(Op.set, key, value));
  }
  const bytes = builder.seal(2, 5, sequence, 1024 * 1024, 1024 ** 3);
  stampBatchTime(bytes, ENTRY_HEADER_BYTES, TIME_MS);
  return bytes;
}

const CLUSTER_ID = '0123456789abcdef'.repeat(2);
const initialMembers = configurationOf([1, 2, 3], [], CLUSTER_ID);

/** A node with `a` and `b` in a snapshot up to entry 10, and a log behind it: `c`, then a configuration. */
async function makeNode(id: number): Promise<string> {
  const state = new StateMachine();
  state.apply(batchOf(1, { a: '1', b: 'two' }), ENTRY_HEADER_BYTES, null);
  const directory = nodeFolder(id);
  await buildNode({
    ...{ disk: fileDisk, clock: systemClock, random: Math.random, directory, clusterName: 'demo', nodeId: id },
    ...{ index: 10, term: 3, currentTerm: 3, configuration: initialMembers, directoryId: 0, incarnation: 7 },
    walSegmentBytes: SEGMENT_BYTES,
    async produce(write) {
      const iterator = state.beginSnapshot();
      for (let chunk = iterator.next(4096); chunk !== null; chunk = iterator.next(4096)) await write(chunk);
    },
  });
  const entries = [
    sealEntry(batchOf(2, { c: 'three' }), 'data', 4, 11),
    sealEntry(encodeConfiguration(initialMembers, ENTRY_HEADER_BYTES), 'configuration', 4, 12),
    sealEntry(batchOf(3, { 'd\x01': '' }), 'data', 4, 13),
  ];
  const { wal } = await openWal({
    ...{ disk: fileDisk, clock: systemClock, clusterName: 'demo', random: Math.random, logger: silentLogger },
    directory: join(directory, 'wal'),
    mustExist: true,
    begin: { index: 10, term: 3 },
    onDamage: null,
    onFatal() {},
    onFull() {},
    sink: { onLogReset() {}, onEntry() {}, onHardState() {} },
    limits: { walSegmentBytes: SEGMENT_BYTES },
  });
  await new Promise<void>((done) => {
    const hardState = encodeHardState({ term: 4, vote: 2, commitIndex: 11 });
    wal.append({ reset: null, hardState, firstIndex: 11, entries: entries.map(({ bytes }) => bytes), done });
  });
  await wal.close();
  return directory;
}

/** Every file with its bytes and time, to see that none was touched. */
function contentsOf(directory: string): unknown[] {
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => {
      const path = join(entry.parentPath, entry.name);
      return [path, statSync(path).mtimeMs, readFileSync(path).toString('base64')];
    });
}

function fileIn(directory: string, part: string): string {
  const [name = ''] = readdirSync(join(directory, part));
  return join(directory, part, name);
}

function flip(path: string, position: number): void {
  const bytes = readFileSync(path);
  bytes[position] = (bytes[position] ?? 0) ^ 1;
  writeFileSync(path, bytes);
}

/** Where the text of an item stands in a file. */
const positionOf = (path: string, text: string) => readFileSync(path).indexOf(text);

describe('raftkv log verify', () => {
  it('finds a good node whole, and changes nothing', async () => {
    const directory = await makeNode(1);
    const before = contentsOf(directory);
    expect(await logVerifyCommand(directory, { json: false })).toBe(0);
    expect(output).toMatch(/^meta {7}ok: node 1 of cluster demo, cluster id (0123456789abcdef){2}, normal$/m);
    expect(output).toMatch(/^snapshot {3}ok: up to entry 10 of term 3, 2 items, \d+ bytes$/m);
    expect(output).toMatch(/^log {8}ok: entries 11 to 13, the last of term 4, in 1 files$/m);
    expect(contentsOf(directory)).toEqual(before);
  });

  it.each<[part: string, code: string, path: (directory: string) => string, text: string]>([
    ['the snapshot', 'SNAPSHOT_DAMAGED', (directory) => fileIn(directory, 'snapshots'), 'two'],
    ['the log', 'WAL_DAMAGED', (directory) => fileIn(directory, 'wal'), 'three'],
    ['meta', 'META_DAMAGED', (directory) => join(directory, 'meta'), '"incarnation"'],
  ])('names a flipped bit in %s, and changes nothing', async (_part, code, path, text) => {
    const directory = await makeNode(1);
    const file = path(directory);
    flip(file, positionOf(file, text));
    const before = contentsOf(directory);
    expect(await logVerifyCommand(directory, { json: true })).toBe(1);
    const { ok, parts } = JSON.parse(output);
    expect(ok).toBe(false);
    expect(parts.find((part: { ok: boolean }) => !part.ok)).toMatchObject({
      code,
      error: expect.stringContaining(file),
    });
    expect(contentsOf(directory)).toEqual(before);
  });

  it('names a log or a snapshot that is missing', async () => {
    const directory = await makeNode(1);
    rmSync(fileIn(directory, 'snapshots'));
    expect(await logVerifyCommand(directory, { json: false })).toBe(1);
    rmSync(fileIn(directory, 'wal'));
    output = '';
    expect(await logVerifyCommand(directory, { json: false })).toBe(1);
    expect(output).toContain('this node had one before');
  });

  it('refuses a folder that is no data directory, and names those in it', async () => {
    const directory = await makeNode(1);
    await expect(logVerifyCommand(join(folder, 'data'), { json: false })).rejects.toMatchObject({
      code: 'DATA_DIR_FOREIGN',
      remedy: expect.stringContaining(directory),
    });
    await expect(logVerifyCommand(join(folder, 'none'), { json: false })).rejects.toMatchObject({
      code: 'DATA_DIR_FOREIGN',
    });
  });

  it('refuses while the node runs', async () => {
    const directory = await makeNode(1);
    const lock = await lockForTool(directory);
    await expect(logVerifyCommand(directory, { json: false })).rejects.toMatchObject({ code: 'DATA_DIR_LOCKED' });
    await lock.release();
    expect(await logVerifyCommand(directory, { json: false })).toBe(0);
  });
});

describe('raftkv log dump', () => {
  it('prints the entries for a person, with nothing that a terminal would obey', async () => {
    await logDumpCommand(await makeNode(1), { json: false });
    const time = new Date(TIME_MS).toISOString();
    expect(output.replaceAll(/\d+ bytes {2}/g, '')).toBe(
      [
        `11  term 4  data  ${time}  node 2 session 5 batch 2  set c (5 bytes)`,
        '12  term 4  configuration  voters 1,2,3',
        `13  term 4  data  ${time}  node 2 session 5 batch 3  set "d\\u0001"`,
        '',
      ].join('\n'),
    );
  });

  it('prints a range as JSON', async () => {
    await logDumpCommand(await makeNode(1), { json: true, from: 12, to: 12 });
    expect(output.split('\n')).toHaveLength(2);
    expect(JSON.parse(output)).toMatchObject({
      index: 12,
      term: 4,
      kind: 'configuration',
      configuration: initialMembers,
    });
  });

  it('fails where the log is damaged', async () => {
    const directory = await makeNode(1);
    const file = fileIn(directory, 'wal');
    flip(file, positionOf(file, 'three'));
    await expect(logDumpCommand(directory, { json: false })).rejects.toMatchObject({ code: 'WAL_DAMAGED' });
  });
});

describe('raftkv snapshot', () => {
  const backupFile = () => join(folder, 'backup.snapshot');
  async function makeBackup(): Promise<Buffer> {
    const directory = await makeNode(1);
    cpSync(fileIn(directory, 'snapshots'), backupFile());
    rmSync(join(folder, 'data'), { recursive: true });
    return readFileSync(backupFile());
  }

  it('inspect tells what is in a backup', async () => {
    await makeBackup();
    await snapshotInspectCommand(backupFile(), { json: true });
    expect(JSON.parse(output)).toMatchObject({
      cluster: 'demo',
      index: 10,
      term: 3,
      items: 2,
      timeMs: TIME_MS,
      voters: [1, 2, 3],
    });
    output = '';
    await snapshotInspectCommand(backupFile(), { json: false });
    expect(output).toContain('2, which take');
    expect(output).toContain('The file is intact.');
  });

  it('inspect and restore refuse a damaged backup, and one that is not there', async () => {
    await makeBackup();
    flip(backupFile(), positionOf(backupFile(), 'two'));
    const damaged = { code: 'SNAPSHOT_DAMAGED' };
    await expect(snapshotInspectCommand(backupFile(), { json: false })).rejects.toMatchObject(damaged);
    await expect(snapshotRestoreCommand(backupFile(), { config })).rejects.toMatchObject(damaged);
    expect(existsSync(join(folder, 'data'))).toBe(false);
    const missing = { code: 'BACKUP_INVALID' };
    await expect(snapshotInspectCommand(join(folder, 'none'), { json: false })).rejects.toMatchObject(missing);
  });

  it('restore fills the node with the lowest id, as the only voter of a new history that has the others join', async () => {
    await makeBackup();
    writeConfig('other', [1, 2, 3, 4, 5]);
    await snapshotRestoreCommand(backupFile(), { config });
    expect(output).toMatch(
      /^Restored 2 items, as of entry 10, into node 1 of cluster other, .* cluster id [0-9a-f]{32} now\./,
    );
    expect(output).toContain('Nodes 2, 3, 4, 5 start with empty data directories');
    expect(readdirSync(join(folder, 'data'))).toEqual(['node-1']);
    const { state } = await readBackup(backupFile());
    const { findings, meta, snapshots, log } = await examineNode({ disk: readOnlyDisk, directory: nodeFolder(1) });
    expect(findings.filter(({ fault }) => fault !== null)).toEqual([]);
    expect(meta).toMatchObject({ clusterName: 'other', nodeId: 1, logCreated: true, lifecycle: 'normal' });
    expect(meta?.clusterId).not.toBe(CLUSTER_ID);
    expect(meta?.incarnation).toBeGreaterThan(1_700_000_000);
    expect(log).toMatchObject({
      firstIndex: 11,
      lastIndex: 10,
      lastTerm: 3,
      hardState: { term: 3, vote: 0, commitIndex: 10 },
    });
    const [snapshot] = snapshots;
    const configuration = decodeConfiguration(snapshot?.configuration ?? Buffer.alloc(0), 0);
    expect(configuration).toMatchObject({ clusterId: meta?.clusterId, voters: [1], learners: [2, 3, 4, 5] });
    expect(configuration.details.map(({ id, joins }) => [id, joins])).toEqual([
      [1, false],
      ...[2, 3, 4, 5].map((id) => [id, true]),
    ]);
    expect(configuration.details[0]?.directoryId).toBe(meta?.directoryId);
    expect((await readBackup(snapshot?.path ?? '')).state.hash()).toBe(state.hash());
  });

  it('restore of one backup twice begins two histories', async () => {
    await makeBackup();
    const idOf = async (id: number) =>
      (await examineNode({ disk: readOnlyDisk, directory: nodeFolder(id) })).meta?.clusterId;
    await snapshotRestoreCommand(backupFile(), { config });
    const first = await idOf(1);
    rmSync(join(folder, 'data'), { recursive: true });
    await snapshotRestoreCommand(backupFile(), { config });
    expect([first, await idOf(1)]).toEqual([
      expect.stringMatching(/^[0-9a-f]{32}$/),
      expect.not.stringMatching(first ?? ''),
    ]);
  });

  it('restore fills the node that is named, also in an empty folder that a node has locked before', async () => {
    await makeBackup();
    mkdirSync(nodeFolder(2), { recursive: true });
    await (await lockForTool(nodeFolder(2))).release();
    await snapshotRestoreCommand(backupFile(), { config, id: 2 });
    expect(readdirSync(join(folder, 'data'))).toEqual(['node-2']);
    expect(output).toContain('into node 2 of cluster');
    await expect(snapshotRestoreCommand(backupFile(), { config, id: 9 })).rejects.toThrow(UsageError);
  });

  it('restore overwrites nothing', async () => {
    await makeBackup();
    mkdirSync(nodeFolder(3), { recursive: true });
    writeFileSync(join(nodeFolder(3), 'meta'), 'mine');
    await expect(snapshotRestoreCommand(backupFile(), { config })).rejects.toMatchObject({ code: 'BACKUP_INVALID' });
    expect(readdirSync(join(folder, 'data'))).toEqual(['node-3']);
  });

  it('save fetches a backup from the first node that gives one, and verifies it', async () => {
    const bytes = await makeBackup();
    admin = await createFakeAdmin(() => ({ status: 200, body: bytes }));
    const file = join(folder, 'saved.snapshot');
    writeConfig('demo', [2, 1], admin.port);
    await snapshotSaveCommand(file, { config });
    expect(readFileSync(file).equals(bytes)).toBe(true);
    expect(output).toContain('Saved 2 items, up to entry 10, from node 1');
    await expect(snapshotSaveCommand(file, { config })).rejects.toMatchObject({ code: 'BACKUP_INVALID' });
  });

  it('save keeps nothing of what does not verify, is truncated, or is of another cluster', async () => {
    const bytes = await makeBackup();
    let body = bytes.subarray(0, bytes.length - 10);
    admin = await createFakeAdmin(() => ({ status: 200, body }));
    writeConfig('demo', [1], admin.port);
    const file = join(folder, 'saved.snapshot');
    await expect(snapshotSaveCommand(file, { config })).rejects.toMatchObject({ code: 'SNAPSHOT_DAMAGED' });
    body = bytes;
    writeConfig('other', [1], admin.port);
    await expect(snapshotSaveCommand(file, { config })).rejects.toMatchObject({ code: 'BACKUP_INVALID' });
    expect(readdirSync(folder).filter((name) => name.startsWith('saved'))).toEqual([]);
  });

  it('save says why no node gives one', async () => {
    admin = await createFakeAdmin(() => ({ status: 503, body: { error: 'no leader', code: '', remedy: '' } }));
    writeConfig('demo', [1, 2], admin.port);
    await expect(snapshotSaveCommand(join(folder, 'x'), { config })).rejects.toMatchObject({
      code: 'PEER_UNREACHABLE',
      message: expect.stringMatching(/node 1 .*: no leader\n.*node 2 .*: connection refused/),
    });
  });
});

describe('raftkv recover --force-new-cluster', () => {
  const options = (changes: object = {}) => ({ config, id: 1, forceNewCluster: true, yes: true, ...changes });

  it('takes all of the log for committed, makes a cluster of one, and keeps the old files', async () => {
    const directory = await makeNode(1);
    const before = readFileSync(fileIn(directory, 'wal'));
    await recoverCommand(options());
    expect(output).toContain('the log ends with entry 13 of term 4; entries up to 11 are known to be committed');
    expect(output).toContain('begins a new history, with 4 items');
    expect(output).toContain('empty the data directories of nodes 2, 3');
    const { findings, meta, snapshots, log } = await examineNode({ disk: readOnlyDisk, directory });
    expect(findings.filter(({ fault }) => fault !== null)).toEqual([]);
    expect(meta).toMatchObject({ lifecycle: 'normal', nodeId: 1 });
    expect(meta?.directoryId).toBeGreaterThan(0);
    expect(log).toMatchObject({ lastIndex: 13, hardState: { term: 5, vote: 0, commitIndex: 13 } });
    expect(snapshots).toMatchObject([{ index: 13, term: 4, items: 4 }]);
    const configuration = decodeConfiguration(snapshots[0]?.configuration ?? Buffer.alloc(0), 0);
    expect(configuration).toMatchObject({
      voters: [1],
      learners: [2, 3],
      details: [{ id: 1, directoryId: meta?.directoryId }, { joins: true }, { joins: true }],
    });
    expect([meta?.clusterId, configuration.clusterId]).toEqual([
      configuration.clusterId,
      expect.not.stringMatching(CLUSTER_ID),
    ]);
    const aside = readdirSync(join(folder, 'data')).find((name) => name.startsWith('node-1.before-recovery-')) ?? '';
    expect(readFileSync(fileIn(join(folder, 'data', aside), 'wal')).equals(before)).toBe(true);
  });

  it('takes what is good in front of damage', async () => {
    const directory = await makeNode(1);
    const file = fileIn(directory, 'wal');
    flip(file, positionOf(file, 'three'));
    rmSync(join(directory, 'meta'));
    await recoverCommand(options());
    expect(output).toContain('damaged: the log file');
    expect(output).toContain('begins a new history, with 2 items');
  });

  it('changes nothing without a word, without consent, or while the node runs', async () => {
    const directory = await makeNode(1);
    utimesSync(join(directory, 'meta'), 1, 1);
    const before = contentsOf(join(directory, 'wal'));
    await expect(recoverCommand(options({ forceNewCluster: false }))).rejects.toThrow(UsageError);
    await expect(recoverCommand(options({ yes: false }))).rejects.toThrow(UsageError);
    await expect(recoverCommand(options({ id: 9 }))).rejects.toThrow(UsageError);
    await expect(recoverCommand(options({ id: 2 }))).rejects.toMatchObject({ code: 'BACKUP_INVALID' });
    const lock = await lockForTool(directory);
    await expect(recoverCommand(options())).rejects.toMatchObject({ code: 'DATA_DIR_LOCKED' });
    await lock.release();
    expect(contentsOf(join(directory, 'wal'))).toEqual(before);
    expect(readdirSync(join(folder, 'data'))).toEqual(['node-1']);
  });

  it('refuses a node that has nothing, and one of another cluster', async () => {
    mkdirSync(nodeFolder(2), { recursive: true });
    await expect(recoverCommand(options({ id: 2 }))).rejects.toMatchObject({ code: 'DATA_DIR_FOREIGN' });
    await makeNode(1);
    writeConfig('other', [1]);
    await expect(recoverCommand(options())).rejects.toMatchObject({ code: 'DATA_DIR_FOREIGN' });
  });
});
