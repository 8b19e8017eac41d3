import { beforeEach, describe, expect, it } from 'vitest';
import type { RaftkvError } from '../../../src/base/errors.ts';
import { silentLogger } from '../../../src/base/logger.ts';
import { HeldLock, type LockFiles } from '../../../src/storage/lock/held-lock.ts';
import { HEARTBEAT_MS, HELD_MS, PATIENCE_MS } from '../../../src/storage/lock/protocol.ts';
import { createManualClock } from '../../support/manual-clock.ts';
import { Random } from '../../support/random.ts';
import { type LockProcess, LockWorld, type Machine } from './lock-world.ts';

/** Who takes the lock from whom, and after how long, on simulated machines. */

const machine = (boot: string, pidNamespace: string): Machine => ({ place: { boot, pidNamespace }, rate: 1 });
const HERE = machine('boot 1', 'namespace 1');
const OTHER_CONTAINER = machine('boot 1', 'namespace 2');
const OTHER_HOST = machine('boot 2', 'namespace 1');
const UNKNOWN: Machine = { place: null, rate: 1 };

const FILE_MS = 1;
/** Enough for some file operations, and less than a look at the heartbeat. */
const AT_ONCE_MS = 100;

let world: LockWorld;
let created: (by: LockProcess) => void;

beforeEach(() => {
  created = () => {};
  world = new LockWorld({ random: new Random(1), delayMs: () => FILE_MS, created: (by) => created(by) });
});

const pass = (ms: number) => world.run(world.nowMs + ms);

async function holder(on: Machine): Promise<LockProcess> {
  const first = world.start(on, 1);
  await pass(AT_ONCE_MS);
  expect(first.state).toBe('holding');
  return first;
}

/** How long until a process got the lock or was refused. */
async function outcome(contender: LockProcess): Promise<number> {
  const startedMs = world.nowMs;
  while (contender.state === 'contending') await pass(10);
  return world.nowMs - startedMs;
}

describe('a contender of the same pid namespace', () => {
  it('is refused at once while the holder is alive, even if that is paused', async () => {
    const first = await holder(HERE);
    first.pause(60_000);
    await pass(30_000);
    const second = world.start(HERE, 2);
    expect(await outcome(second)).toBeLessThan(AT_ONCE_MS);
    expect(second.error).toMatchObject({
      code: 'DATA_DIR_LOCKED',
      message: expect.stringContaining('process 1 on host host, since 2026-01-01T00:00:00.000Z'),
      remedy: expect.stringContaining('process 1 '),
    });
    expect(second.watched).toEqual([]);
  });

  it.each([1, 2])('takes over from a dead process at once, as pid %i', async (pid) => {
    (await holder(HERE)).kill();
    const second = world.start(HERE, pid);
    expect(await outcome(second)).toBeLessThan(AT_ONCE_MS);
    expect(second).toMatchObject({ state: 'holding', number: 2, watched: [] });
    expect([...world.files.keys()]).toEqual(['0000000002']);
  });

  it('waits after a claimant that has died, because the holder before it may not have noticed', async () => {
    const first = await holder(OTHER_CONTAINER);
    first.pause(PATIENCE_MS + 2_000);
    created = (by) => by.kill();
    const claimant = world.start(HERE, 1);
    await outcome(claimant);
    expect(first.isDead).toBe(false);
    created = () => {};
    const next = world.start(HERE, 1);
    expect(await outcome(next)).toBeGreaterThan(PATIENCE_MS);
    expect(next.state).toBe('holding');
  });
});

describe.each([
  ['another pid namespace of the machine', OTHER_CONTAINER],
  ['another host, or the machine before it was restarted', OTHER_HOST],
  ['a system that tells nothing', UNKNOWN],
])('a contender, after a holder of %s,', (_where, elsewhere) => {
  it('is refused as soon as it sees the heartbeat', async () => {
    await holder(elsewhere);
    const second = world.start(HERE, 1);
    expect(await outcome(second)).toBeLessThan(HEARTBEAT_MS + 500);
    expect(second.error).toMatchObject({
      code: 'DATA_DIR_LOCKED',
      message: expect.stringContaining('process 1 on host host, since 2026-01-01T00:00:00.000Z'),
    });
    expect(second.watched).toHaveLength(1);
  });

  it('takes over when the heartbeat has been silent for long enough, and not before', async () => {
    (await holder(elsewhere)).kill();
    const second = world.start(HERE, 1);
    const tookMs = await outcome(second);
    expect(tookMs).toBeGreaterThanOrEqual(PATIENCE_MS);
    expect(tookMs).toBeLessThan(PATIENCE_MS + 1_000);
    expect(second).toMatchObject({ state: 'holding', number: 2 });
  });

  it('takes over at once what was released', async () => {
    const first = await holder(elsewhere);
    void first.release();
    await pass(AT_ONCE_MS);
    const second = world.start(HERE, 1);
    expect(await outcome(second)).toBeLessThan(AT_ONCE_MS);
    expect(second).toMatchObject({ state: 'holding', watched: [] });
  });

  it('is one of many of which exactly one takes over', async () => {
    (await holder(elsewhere)).kill();
    const contenders = [HERE, HERE, OTHER_HOST, UNKNOWN].map((each, i) => world.start(each, 10 + i));
    for (const each of contenders) await outcome(each);
    expect(contenders.filter((each) => each.state === 'holding')).toHaveLength(1);
  });
});

it('a record that was never written counts as silent after the same time', async () => {
  world.files.set('0000000007', '');
  const first = world.start(HERE, 1);
  const tookMs = await outcome(first);
  expect(tookMs).toBeGreaterThanOrEqual(PATIENCE_MS);
  expect(first).toMatchObject({ state: 'holding', number: 8, watched: [null] });
});

describe('a holder that was paused', () => {
  it('ends before it acts, if another process took the lock meanwhile, and names it', async () => {
    const first = await holder(OTHER_HOST);
    first.pause(PATIENCE_MS + 5_000);
    const second = world.start(HERE, 7);
    await outcome(second);
    expect(second.act()).toBe(true);
    await pass(6_000);
    expect(first.act()).toBe(false);
    expect(first.error).toMatchObject({
      code: 'DATA_DIR_LOST',
      message: expect.stringContaining('it was taken by process 7 on host host, since 2026-01-01T00:00:00.000Z'),
    });
    expect(second.act()).toBe(true);
  });

  it.each(['pause', 'suspend'] as const)('goes on, if no other process took the lock: %s', async (kind) => {
    const first = await holder(HERE);
    first[kind](60_000);
    await pass(60_000);
    const { files } = world;
    const before = files.get('0000000001');
    expect(first.act()).toBe(true);
    // It has renewed the lock before it acted.
    expect(files.get('0000000001')).not.toBe(before);
  });

  it('and that wakes up just before it is taken for dead, ends, and the other waits until it has', async () => {
    const first = await holder(OTHER_HOST);
    first.pause(60_000);
    let claimedMs = 0;
    created = () => {
      claimedMs = world.nowMs;
      // Its renewal takes effect before the claimant reads its record again.
      first.wakeIn(0);
    };
    const second = world.start(HERE, 1);
    await outcome(second);
    expect(first.error).toMatchObject({ code: 'DATA_DIR_LOST' });
    expect(second.state).toBe('holding');
    expect(world.nowMs - claimedMs).toBeGreaterThan(PATIENCE_MS);
  });
});

describe('a disk that does not answer', () => {
  /** Files that are held by number 1. */
  function files(fail: () => Error | null) {
    const each: LockFiles = {
      performNow(operation) {
        const error = fail();
        if (error !== null) throw error;
        return operation.kind === 'list' ? ['0000000001'] : true;
      },
      perform: async (operation) => each.performNow(operation),
    };
    return each;
  }

  function hold(fail: () => Error | null) {
    const clock = createManualClock();
    const lost: RaftkvError[] = [];
    const identity = { pid: 1, host: 'h', since: '', id: '', place: null, started: null };
    const onLost = (error: RaftkvError) => void lost.push(error);
    const options = { directory: 'd', files: files(fail), clock: clock.clock, logger: silentLogger, identity, onLost };
    const lock = new HeldLock(options, { number: 1, renewedMs: 0, renewedWallMs: 0, beat: 0 });
    return { clock, lock, lost };
  }

  it('costs nothing for a few seconds', async () => {
    let error: Error | null = new Error('EIO');
    const { clock, lock, lost } = hold(() => error);
    for (let i = 0; i < 3; i++) {
      clock.advance(HEARTBEAT_MS);
      await new Promise(setImmediate);
    }
    expect(lock.check()).toBe(true);
    error = null;
    clock.advance(HEARTBEAT_MS / 2);
    await new Promise(setImmediate);
    clock.advance(HELD_MS);
    expect(lock.check()).toBe(true);
    expect(lost).toEqual([]);
  });

  it('ends the process with its error when the last renewal has lapsed', () => {
    const { clock, lock, lost } = hold(() => new Error('EIO'));
    clock.advance(HELD_MS - 1);
    expect(lock.check()).toBe(true);
    clock.advance(1);
    expect(lock.check()).toBe(false);
    expect(lock.check()).toBe(false);
    expect(lost).toMatchObject([{ code: 'DATA_DIR_LOST', cause: { message: 'EIO' } }]);
    expect(clock.pending()).toBe(0);
  });

  it('does not count as lost after a release', async () => {
    const { clock, lock, lost } = hold(() => null);
    await lock.release();
    clock.advance(HELD_MS);
    expect(lock.check()).toBe(false);
    expect(lost).toEqual([]);
  });
});
