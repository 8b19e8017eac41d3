import { describe, expect, it } from 'vitest';
import { InputQueue, type ReplicaInput } from '../../src/replica/input-queue.ts';

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
