import { beforeEach, describe, expect, it } from 'vitest';
import { NO_NODE } from '../../src/raft/state/types.ts';
import { InputQueue, NodeLoop, type ReplicaInput } from '../../src/replica/node-loop.ts';
import { raftOf } from './cores.ts';
import { ManualClock } from './support.ts';

const TICK_MS = 10;

describe('the loop of a node', () => {
  let clock: ManualClock;
  let events: string[];
  let fatal: unknown[];
  let loop: NodeLoop;
  let failure: Error | null;

  beforeEach(() => {
    clock = new ManualClock();
    events = [];
    fatal = [];
    failure = null;
    const options = {
      clock: clock.forProcess(() => true),
      tickMs: TICK_MS,
      observer: null,
      onFatal: (error: unknown) => fatal.push(error),
    };
    loop = new NodeLoop(raftOf(2), options, {
      carryOut(input: ReplicaInput) {
        events.push(input.kind);
        if (failure !== null) throw failure;
      },
      tick: (count) => events.push(`ticks ${count}`),
      endTurn: () => events.push('end of turn'),
      refuseAll: () => events.push('refuse all'),
    });
  });

  it('steps the core and has the effects carried out', () => {
    loop.run(() => loop.put({ kind: 'linkUp', peer: 3 }));
    loop.run(() => loop.put({ kind: 'diskFull', full: true }));
    expect([events, loop.core.diskFull, loop.core.leader]).toEqual([['linkUp', 'diskFull'], true, NO_NODE]);
  });

  it('gives ticks as time passes', () => {
    clock.moveTo(clock.nowMs + TICK_MS);
    clock.moveTo(clock.nowMs + 2 * TICK_MS);
    expect(events).toEqual(['ticks 1', 'ticks 2']);
  });

  it('ends a turn once, however often that is asked for', () => {
    loop.scheduleTurn();
    loop.scheduleTurn();
    expect(events).toEqual([]);
    clock.endTurns();
    loop.scheduleTurn();
    clock.endTurns();
    expect(events).toEqual(['end of turn', 'end of turn']);
  });

  it('does nothing more after an error, which it reports once', () => {
    failure = new Error('broken');
    loop.scheduleTurn();
    loop.run(() => {
      loop.put({ kind: 'linkUp', peer: 3 });
      events.push('not reached');
    });
    loop.run(() => events.push('run after the error'));
    loop.put({ kind: 'tick' });
    loop.fail(new Error('another'));
    loop.stop();
    clock.moveTo(clock.nowMs + 10 * TICK_MS);
    clock.endTurns();
    expect([events, fatal, loop.isRunning]).toEqual([['linkUp'], [failure], false]);
  });

  it('refuses all requests when it stops, also those that come later', () => {
    loop.stop();
    loop.stop();
    expect(events.splice(0)).toEqual(['refuse all']);
    loop.run(() => events.push('run after the stop'));
    loop.put({ kind: 'tick' });
    clock.moveTo(clock.nowMs + 10 * TICK_MS);
    loop.scheduleTurn();
    clock.endTurns();
    expect([events, fatal]).toEqual([['refuse all'], []]);
  });
});

const readOf = (id: number): ReplicaInput => ({ kind: 'read', id });

describe('an input queue', () => {
  it('takes an input at once, and what follows from it before it returns', () => {
    const taken: ReplicaInput[] = [];
    const queue = new InputQueue((input) => {
      taken.push(input);
      if (taken.length === 1) queue.put({ kind: 'applied', index: 7 });
    });
    queue.put({ kind: 'tick' });
    expect(taken).toEqual([{ kind: 'tick' }, { kind: 'applied', index: 7 }]);
    queue.put({ kind: 'tick' });
    expect(taken).toHaveLength(3);
  });

  it('takes no input before the one in front is complete, and takes all in the order they came', () => {
    const events: string[] = [];
    const followers = new Map([
      [1, [2, 3]],
      [2, [4]],
    ]);
    const queue = new InputQueue((input) => {
      if (input.kind !== 'read') return;
      events.push(`begin ${input.id}`);
      for (const id of followers.get(input.id) ?? []) queue.put(readOf(id));
      events.push(`end ${input.id}`);
    });
    queue.put(readOf(1));
    expect(events).toEqual([1, 2, 3, 4].flatMap((id) => [`begin ${id}`, `end ${id}`]));
  });

  it('takes nothing more once an input could not be carried out', () => {
    const taken: ReplicaInput[] = [];
    const queue = new InputQueue((input) => {
      taken.push(input);
      throw new Error('EIO');
    });
    expect(() => queue.put(readOf(1))).toThrow('EIO');
    queue.put(readOf(2));
    expect(taken).toEqual([readOf(1)]);
  });
});
