import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RaftkvError } from '../../../src/base/errors.ts';
import { configurationOf } from '../../../src/raft/state/configuration.ts';
import { ENTRY_HEADER_BYTES, sealEntry } from '../../../src/raft/state/entry.ts';
import type { Entry, EntryKind, Message } from '../../../src/raft/state/types.ts';
import { decodeMessage, encodeMessage, type PeerMessage } from '../../../src/replica/peers/wire.ts';

const FROM = 2;
const TO = 3;

const number = fc.oneof(fc.nat(), fc.maxSafeNat());
const envelope = { from: fc.constant(FROM), to: fc.constant(TO), term: number };

/** Entries that follow `prevIndex` in terms from `prevTerm` to `term`. */
function entriesAfter(prevIndex: number, prevTerm: number, term: number): fc.Arbitrary<Entry[]> {
  const kind = fc.constantFrom<EntryKind>('noop', 'data', 'configuration');
  const one = fc.record({ kind, payload: fc.uint8Array({ maxLength: 40 }), rise: fc.nat({ max: 3 }) });
  return fc.array(one, { maxLength: 5 }).map((ones) => {
    let entryTerm = prevTerm;
    return ones.map(({ kind, payload, rise }, i) => {
      entryTerm = Math.min(term, entryTerm + rise);
      const bytes = Buffer.concat([Buffer.alloc(ENTRY_HEADER_BYTES), payload]);
      return sealEntry(bytes, kind, entryTerm, prevIndex + i + 1);
    });
  });
}

const append = fc
  .record({ prevIndex: fc.nat(), terms: fc.tuple(fc.nat(), fc.nat()), commitIndex: number })
  .chain(({ prevIndex, terms, commitIndex }) => {
    const [prevTerm, term] = terms.sort((a, b) => a - b) as [number, number];
    return entriesAfter(prevIndex, prevTerm, term).map(
      (entries): Message => ({ kind: 'append', from: FROM, to: TO, term, prevIndex, prevTerm, commitIndex, entries }),
    );
  });

const bytes = fc.uint8Array({ maxLength: 80 }).map((all) => Buffer.from(all));

type Arbitraries = { [Kind in PeerMessage['kind']]: fc.Arbitrary<Extract<PeerMessage, { kind: Kind }>> };

const configuration = fc
  .uniqueArray(fc.integer({ min: 1, max: 64 }), { minLength: 1, maxLength: 7 })
  .map((voters) => configurationOf(voters, [], '0123456789abcdef'.repeat(2)));

const MESSAGES: Arbitraries = {
  preVote: fc.record({ kind: fc.constant('preVote'), ...envelope, lastIndex: number, lastTerm: number }),
  preVoteReply: fc.record({
    kind: fc.constant('preVoteReply'),
    ...envelope,
    granted: fc.boolean(),
    directoryId: number,
    withoutRights: fc.boolean(),
  }),
  vote: fc.record({
    kind: fc.constant('vote'),
    ...envelope,
    lastIndex: number,
    lastTerm: number,
    transfer: fc.boolean(),
  }),
  voteReply: fc.record({
    kind: fc.constant('voteReply'),
    ...envelope,
    granted: fc.boolean(),
    directoryId: number,
    withoutRights: fc.boolean(),
  }),
  append: append as Arbitraries['append'],
  appendReply: fc.record({
    kind: fc.constant('appendReply'),
    ...envelope,
    success: fc.boolean(),
    index: number,
    hintIndex: number,
    hintTerm: number,
    directoryId: number,
    withoutRights: fc.boolean(),
    diskFull: fc.boolean(),
  }),
  heartbeat: fc.record({
    kind: fc.constant('heartbeat'),
    ...envelope,
    commitIndex: number,
    directoryId: number,
    round: number,
    clusterFull: fc.boolean(),
  }),
  heartbeatReply: fc.record({
    kind: fc.constant('heartbeatReply'),
    ...envelope,
    round: number,
    directoryId: number,
    withoutRights: fc.boolean(),
    diskFull: fc.boolean(),
  }),
  commit: fc.record({
    kind: fc.constant('commit'),
    ...envelope,
    index: number,
    indexTerm: number,
    commitIndex: number,
  }),
  timeoutNow: fc.record({ kind: fc.constant('timeoutNow'), ...envelope }),
  readIndex: fc.record({
    kind: fc.constant('readIndex'),
    ...envelope,
    id: number,
    directoryId: number,
    withoutRights: fc.boolean(),
  }),
  readIndexReply: fc.record({
    kind: fc.constant('readIndexReply'),
    ...envelope,
    id: number,
    index: fc.oneof(fc.constant(-1), fc.nat()),
  }),
  proposal: fc.record({
    kind: fc.constant('proposal'),
    term: number,
    sequence: number,
    oldestSequence: number,
    sessionId: number,
    bytes,
  }),
  proposalRefused: fc.record({
    kind: fc.constant('proposalRefused'),
    term: number,
    sessionId: number,
    expectedSequence: number,
  }),
  snapshotOffer: fc.record({
    kind: fc.constant('snapshotOffer'),
    ...envelope,
    snapshotIndex: number,
    snapshotTerm: number,
  }),
  recovering: fc.record({ kind: fc.constant('recovering'), ...envelope, directoryId: number }),
  lifecycle: fc.record({
    kind: fc.constant('lifecycle'),
    lifecycle: fc.constantFrom('uninitialized', 'recovering', 'normal'),
    directoryId: number,
    nodes: fc.array(fc.integer({ min: 1, max: 2 ** 32 - 1 }), { maxLength: 9 }),
    first: fc.option(configuration, { nil: null }),
  }),
  membersNews: fc.record({
    kind: fc.constant('membersNews'),
    index: number,
    configuration,
  }),
};

const anyMessage: fc.Arbitrary<PeerMessage> = fc.oneof(...Object.values(MESSAGES));

function frameOf(message: PeerMessage): Buffer {
  return Buffer.concat(encodeMessage(message));
}

/** Decodes, and fails where anything but a MESSAGE_INVALID is thrown. */
function decodesOrRefuses(frame: Buffer): void {
  try {
    decodeMessage(frame, FROM, TO);
  } catch (error) {
    if (!(error instanceof RaftkvError) || error.code !== 'MESSAGE_INVALID') throw error;
  }
}

function refused(frame: Buffer): void {
  expect(() => decodeMessage(frame, FROM, TO)).toThrow(expect.objectContaining({ code: 'MESSAGE_INVALID' }));
}

describe('messages between peers', () => {
  it.each(Object.entries(MESSAGES))('come out as they went in: %s', (_, message) => {
    fc.assert(
      fc.property(message as fc.Arbitrary<PeerMessage>, (original) => {
        expect(decodeMessage(frameOf(original), FROM, TO)).toEqual(original);
      }),
    );
  });

  it('carry entries and batches without a copy, out and in', () => {
    const entry = sealEntry(Buffer.alloc(ENTRY_HEADER_BYTES + 8), 'data', 1, 1);
    const place = { from: FROM, to: TO, term: 1, prevIndex: 0, prevTerm: 0, commitIndex: 0 };
    expect(encodeMessage({ kind: 'append', ...place, entries: [entry] })[1]).toBe(entry.bytes);
    const numbers = { term: 1, sessionId: 1, sequence: 1, oldestSequence: 1 };
    expect(encodeMessage({ kind: 'proposal', ...numbers, bytes: entry.bytes })[1]).toBe(entry.bytes);
    const frame = frameOf({ kind: 'append', ...place, entries: [entry] });
    const decoded = decodeMessage(frame, FROM, TO) as Extract<Message, { kind: 'append' }>;
    expect(decoded.entries[0]?.bytes.buffer).toBe(frame.buffer);
  });

  it('are refused where the bytes are anything else', () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 120 }), (bytes) => decodesOrRefuses(Buffer.from(bytes))));
  });

  it('are refused, or are another message, where bytes of one were changed', () => {
    const change = fc.record({ at: fc.nat(), byte: fc.nat({ max: 255 }) });
    fc.assert(
      fc.property(anyMessage, fc.array(change, { minLength: 1, maxLength: 4 }), (message, changes) => {
        const frame = frameOf(message);
        for (const { at, byte } of changes) frame[at % frame.length] = byte;
        decodesOrRefuses(frame);
      }),
      { numRuns: 1000 },
    );
  });

  it('are refused if they are truncated, but for what is judged by itself', () => {
    fc.assert(
      fc.property(anyMessage, fc.nat(), (message, length) => {
        const frame = frameOf(message);
        const truncated = frame.subarray(0, length % frame.length);
        if ('bytes' in message || message.kind === 'append') decodesOrRefuses(truncated);
        else refused(truncated);
      }),
    );
  });

  it('are refused where a number is too large to be exact', () => {
    const frame = frameOf({ kind: 'recovering', from: FROM, to: TO, term: 1, directoryId: 1 });
    for (const at of [4, 12]) {
      const wrong = Buffer.from(frame);
      wrong.fill(0xff, at, at + 8);
      refused(wrong);
    }
  });

  it('are refused where entries leave a gap, or are of a term that cannot be', () => {
    const entry = (index: number, term: number) => sealEntry(Buffer.alloc(ENTRY_HEADER_BYTES), 'noop', term, index);
    const place = { kind: 'append', from: FROM, to: TO, term: 5, prevIndex: 7, prevTerm: 3, commitIndex: 0 } as const;
    const good = frameOf({ ...place, entries: [entry(8, 3), entry(9, 5)] });
    expect(() => decodeMessage(good, FROM, TO)).not.toThrow();
    refused(frameOf({ ...place, entries: [entry(9, 3)] }));
    refused(frameOf({ ...place, entries: [entry(8, 3), entry(10, 3)] }));
    refused(frameOf({ ...place, entries: [entry(8, 2)] }));
    refused(frameOf({ ...place, entries: [entry(8, 5), entry(9, 4)] }));
    refused(frameOf({ ...place, entries: [entry(8, 6)] }));
  });
});
