import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { MetaMode } from '../../src/kv/meta.ts';
import { StateMachine } from '../../src/kv/state-machine.ts';
import { Op } from '../../src/kv/types.ts';
import { applyTo, type BatchFields, batchOf, type Command, clockBatchAt, metaValue, START_MS } from './harness.ts';

const FIELDS = { timeMs: START_MS, itemBytesMax: 1024, storeBytesMax: 100_000 };
const INCR: readonly Command[] = [{ op: Op.incr, key: 'n', arg: 1n }];

const batch = (proposer: number, sessionId: number, sequence: number, commands = INCR, timeMs = START_MS): Buffer =>
  batchOf(commands, { ...FIELDS, timeMs, proposer, sessionId, sequence } satisfies BatchFields);

function counter(): { machine: StateMachine; send: (...batch: [number, number, number]) => string } {
  const machine = new StateMachine();
  applyTo(machine, batch(9, 1, 1, [{ op: Op.set, key: 'n', value: '0' }]));
  return {
    machine,
    send: (...fields) => {
      const { outcome, results } = applyTo(machine, batch(...fields));
      expect(results.length).toBe(outcome === 'applied' ? 1 : 0);
      return `${outcome} ${machine.get('n')?.value}`;
    },
  };
}

describe('exactly once', () => {
  it('a batch is applied as the next of its session, and a duplicate or a gap is skipped', () => {
    const { machine, send } = counter();
    expect(send(1, 5, 2)).toBe('gap 0');
    expect(machine.session(1)).toBeUndefined();
    expect(send(1, 5, 1)).toBe('applied 1');
    expect(send(1, 5, 1)).toBe('duplicate 1');
    expect(send(1, 5, 3)).toBe('gap 1');
    expect(send(1, 5, 2)).toBe('applied 2');
    expect(send(1, 5, 1)).toBe('duplicate 2');
    expect(send(1, 5, 3)).toBe('applied 3');
    expect(machine.session(1)).toEqual({ sessionId: 5, lastSequence: 3 });
  });

  it('a newer session starts at 1 and ends the older one', () => {
    const { machine, send } = counter();
    send(1, 5, 1);
    expect(send(1, 6, 2)).toBe('gap 1');
    expect(send(1, 5, 2)).toBe('applied 2');
    expect(send(1, 6, 1)).toBe('applied 3');
    expect(send(1, 5, 3)).toBe('staleSession 3');
    expect(send(1, 5, 1)).toBe('staleSession 3');
    expect(machine.session(1)).toEqual({ sessionId: 6, lastSequence: 1 });
  });

  it('every proposer counts for itself', () => {
    const { machine, send } = counter();
    expect(send(1, 1, 1)).toBe('applied 1');
    expect(send(2, 1, 1)).toBe('applied 2');
    expect(send(1, 1, 2)).toBe('applied 3');
    expect([...machine.sessions()].map(([proposer]) => proposer).sort()).toEqual([1, 2, 9]);
  });

  it('a batch that is skipped advances time all the same', () => {
    const { machine } = counter();
    applyTo(machine, batch(1, 1, 1, [{ op: Op.set, key: 'e', value: 'x', exptime: 1 }]));
    expect(applyTo(machine, batch(1, 1, 1, INCR, START_MS + 1000)).outcome).toBe('duplicate');
    expect(machine.get('e')).toBeUndefined();
    expect(machine.timeMs).toBe(START_MS + 1000);
  });

  it('a clock batch is of no session', () => {
    const { machine } = counter();
    expect(applyTo(machine, clockBatchAt(START_MS + 5))).toEqual({ outcome: 'clock', results: [] });
    expect([...machine.sessions()].length).toBe(1);
    expect(machine.timeMs).toBe(START_MS + 5);
  });
});

describe('replicas', () => {
  const key = fc.constantFrom('a', 'b', 'c', 'd');
  const plainCommand = fc.record({
    op: fc.constantFrom(...Object.values(Op)),
    key,
    value: fc.constantFrom('1', '99', 'text', ''),
    flags: fc.nat(3),
    exptime: fc.constantFrom(0, 0, 1, 2, -1),
    arg: fc.constantFrom(0n, 1n, 2n, 5n),
  });
  const meta = fc.record({
    asked: fc.nat(1023),
    mode: fc.constantFrom(...Object.values(MetaMode)),
    vivifySeconds: fc.constantFrom(0, 1, 5),
    recacheSeconds: fc.constantFrom(0, 1, 2),
    newCasHigh: fc.constantFrom(0, 0x8000_0000),
    newCasLow: fc.nat(5),
    deltaLow: fc.nat(3),
  });
  const command: fc.Arbitrary<Command> = fc
    .tuple(plainCommand, meta)
    .map(([one, block]) => (one.op <= Op.flushAll ? one : { ...one, value: metaValue(block, one.value) }));
  const step = fc.record({
    proposer: fc.integer({ min: 1, max: 3 }),
    restart: fc.nat(9).map((n) => n === 0),
    passMs: fc.constantFrom(0, 0, 1, 400, 1500),
    commands: fc.array(command, { maxLength: 5 }),
    /** Which earlier batches come again right after this one. */
    again: fc.array(fc.nat(1000), { maxLength: 3 }),
  });

  it('hold the same state after the same batches, however many of them come again', () => {
    const run = (
      steps: { proposer: number; restart: boolean; passMs: number; commands: Command[]; again: number[] }[],
    ) => {
      const clean = new StateMachine();
      const replayed = new StateMachine();
      const sessions = new Map<number, { sessionId: number; sequence: number }>();
      const sent: ((timeMs: number) => Buffer)[] = [];
      let timeMs = START_MS;
      for (const { proposer, restart, passMs, commands, again } of steps) {
        timeMs += passMs;
        const at = sessions.get(proposer) ?? { sessionId: 1, sequence: 0 };
        const next = restart ? { sessionId: at.sessionId + 1, sequence: 1 } : { ...at, sequence: at.sequence + 1 };
        sessions.set(proposer, next);
        const { sessionId, sequence } = next;
        const encode = (ms: number) => batch(proposer, sessionId, sequence, commands, ms);
        sent.push(encode);
        const results = applyTo(clean, encode(timeMs));
        expect(applyTo(replayed, encode(timeMs))).toEqual(results);
        expect(results.outcome).toBe('applied');
        for (const which of again) {
          const { outcome } = applyTo(replayed, sent[which % sent.length]?.(timeMs) ?? clockBatchAt(timeMs));
          expect(outcome === 'duplicate' || outcome === 'staleSession').toBe(true);
        }
        expect(replayed.hash()).toBe(clean.hash());
        expect(replayed.storeBytes).toBe(clean.storeBytes);
        expect(replayed.nextEventMs()).toBe(clean.nextEventMs());
      }
    };
    fc.assert(fc.property(fc.array(step, { minLength: 1, maxLength: 40 }), run), { numRuns: 200 });
  });

  it('have the same hash whatever the order in which they came to the same state', () => {
    const set = (name: string): Command => ({ op: Op.set, key: name, value: name });
    const machineOf = (...commands: Command[]) => {
      const machine = new StateMachine();
      applyTo(machine, batch(1, 1, 1, commands));
      return machine;
    };
    const one = machineOf(
      set('a'),
      set('b'),
      { op: Op.touch, key: 'a', exptime: 5 },
      { op: Op.touch, key: 'b', exptime: 9 },
    );
    const other = machineOf(
      set('a'),
      set('b'),
      { op: Op.touch, key: 'b', exptime: 9 },
      { op: Op.touch, key: 'a', exptime: 5 },
    );
    expect(one.hash()).toBe(other.hash());
  });

  it('have another hash after any difference of state', () => {
    const base: readonly Command[] = [
      { op: Op.set, key: 'k', value: '1' },
      { op: Op.set, key: 'x', value: '1' },
    ];
    const variants: (readonly Command[])[] = [
      [],
      [{ op: Op.set, key: 'k', value: '2' }],
      [{ op: Op.set, key: 'k', value: '1', flags: 1 }],
      [{ op: Op.set, key: 'k', value: '1' }],
      [
        { op: Op.set, key: 'k', value: '1' },
        { op: Op.set, key: 'x', value: '1' },
      ],
      [
        { op: Op.set, key: 'x', value: '1' },
        { op: Op.set, key: 'k', value: '1' },
      ],
      [{ op: Op.touch, key: 'k', exptime: 5 }],
      [{ op: Op.touch, key: 'x', exptime: 5 }],
      [{ op: Op.touch, key: 'k', exptime: 6 }],
      [{ op: Op.delete, key: 'k' }],
      [{ op: Op.flushAll, arg: 9n }],
      [{ op: Op.flushAll, arg: 8n }],
      [{ op: Op.set, key: 'new', value: '1', exptime: -1 }],
    ];
    const hashes = variants.map((commands) => {
      const machine = new StateMachine();
      applyTo(machine, batch(1, 1, 1, [...base, ...commands]));
      return machine.hash();
    });
    const machines = [batch(2, 1, 1, base), batch(1, 2, 1, base), batch(1, 1, 1, base, START_MS + 1)].map((bytes) => {
      const machine = new StateMachine();
      applyTo(machine, bytes);
      return machine.hash();
    });
    const all = [...hashes, ...machines, new StateMachine().hash()];
    expect(new Set(all).size).toBe(all.length);
  });
});
