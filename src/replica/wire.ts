import { RaftkvError } from '../base/errors.ts';
import { readUint64, writeUint64 } from '../base/uint64.ts';
import { readEntry } from '../raft/entry.ts';
import type { Entry, Message, NodeId } from '../raft/types.ts';

/**
 * What peers say to each other, as the payload of one frame of the transport. Little-endian; every message begins with
 *
 * ```
 *  0  u8  kind     see KIND
 *  1  u8  flag     granted, success or transfer, where the kind has one
 *  2  u16 zero
 *  4  u64 term
 * 12  u64 × n      the fields of the kind, in the order in which `FIELDS` names them
 * ```
 *
 * and an append or a proposal ends with its entries as they are on disk (`raft/entry.ts`). Who sends and who receives
 * is known from the link.
 */

/** A batch on its way from its origin to the leader of `term`. */
export interface Proposal {
  readonly kind: 'proposal';
  readonly term: number;
  /** The batch's place in its origin's session. */
  readonly sequence: number;
  /** The origin's oldest batch that it has not yet seen applied: where a leader that knows nothing of it begins. */
  readonly oldestSequence: number;
  readonly session: number;
  /** The batch, with room for the entry's header in front. */
  readonly bytes: Buffer;
}

/** The receiver of a proposal did not take it. */
export interface ProposalRefused {
  readonly kind: 'proposalRefused';
  readonly term: number;
  readonly session: number;
  /** Send again from this sequence; 0 where the receiver does not lead. */
  readonly expectedSequence: number;
}

export type PeerMessage = Message | Proposal | ProposalRefused;

const KIND = {
  preVote: 1,
  preVoteReply: 2,
  vote: 3,
  voteReply: 4,
  append: 5,
  appendReply: 6,
  heartbeat: 7,
  heartbeatReply: 8,
  commit: 9,
  timeoutNow: 10,
  readIndex: 11,
  readIndexReply: 12,
  proposal: 13,
  proposalRefused: 14,
} as const satisfies Record<PeerMessage['kind'], number>;

const HEAD_BYTES = 12;
const FIELD_BYTES = 8;

/** Encodes a message as the parts of one frame. Entries are not copied. */
export function encodeMessage(message: PeerMessage): Buffer[] {
  switch (message.kind) {
    case 'preVote':
      return [head(KIND.preVote, false, message.term, [message.lastIndex, message.lastTerm])];
    case 'preVoteReply':
      return [head(KIND.preVoteReply, message.granted, message.term, [])];
    case 'vote':
      return [head(KIND.vote, message.transfer, message.term, [message.lastIndex, message.lastTerm])];
    case 'voteReply':
      return [head(KIND.voteReply, message.granted, message.term, [])];
    case 'append': {
      const { term, prevIndex, prevTerm, commitIndex, entries } = message;
      const parts = [head(KIND.append, false, term, [prevIndex, prevTerm, commitIndex])];
      for (const entry of entries) parts.push(entry.bytes);
      return parts;
    }
    case 'appendReply': {
      const { success, term, index, hintIndex, hintTerm } = message;
      return [head(KIND.appendReply, success, term, [index, hintIndex, hintTerm])];
    }
    case 'heartbeat':
      return [head(KIND.heartbeat, false, message.term, [message.commitIndex, message.round])];
    case 'heartbeatReply':
      return [head(KIND.heartbeatReply, false, message.term, [message.round])];
    case 'commit':
      return [head(KIND.commit, false, message.term, [message.index, message.indexTerm, message.commitIndex])];
    case 'timeoutNow':
      return [head(KIND.timeoutNow, false, message.term, [])];
    case 'readIndex':
      return [head(KIND.readIndex, false, message.term, [message.id])];
    case 'readIndexReply':
      // Indexes travel one higher, so that "not confirmed", -1, is 0.
      return [head(KIND.readIndexReply, false, message.term, [message.id, message.index + 1])];
    case 'proposal': {
      const { term, session, sequence, oldestSequence, bytes } = message;
      return [head(KIND.proposal, false, term, [session, sequence, oldestSequence]), bytes];
    }
    case 'proposalRefused':
      return [head(KIND.proposalRefused, false, message.term, [message.session, message.expectedSequence])];
  }
}

function head(kind: number, flag: boolean, term: number, fields: readonly number[]): Buffer {
  const buffer = Buffer.allocUnsafe(HEAD_BYTES + fields.length * FIELD_BYTES);
  buffer.writeUInt32LE(kind | (flag ? 0x100 : 0), 0);
  writeUint64(buffer, term, 4);
  let at = HEAD_BYTES;
  for (const field of fields) {
    writeUint64(buffer, field, at);
    at += FIELD_BYTES;
  }
  return buffer;
}

/**
 * Decodes one frame from `from`. Entries and batches are views of it.
 * @throws RaftkvError MESSAGE_INVALID where the frame is no message.
 */
export function decodeMessage(frame: Buffer, from: NodeId, to: NodeId): PeerMessage {
  if (frame.length < HEAD_BYTES) throw invalid(from, 'is cut off');
  const kind = frame.readUInt8(0);
  const flag = frame.readUInt8(1) === 1;
  const term = readUint64(frame, 4);
  if (!Number.isSafeInteger(term)) throw invalid(from, 'has a term out of range');
  const field = (position: number) => readField(frame, position, from);
  switch (kind) {
    case KIND.preVote:
      return { kind: 'preVote', from, to, term, lastIndex: field(0), lastTerm: field(1) };
    case KIND.preVoteReply:
      return { kind: 'preVoteReply', from, to, term, granted: flag };
    case KIND.vote:
      return { kind: 'vote', from, to, term, transfer: flag, lastIndex: field(0), lastTerm: field(1) };
    case KIND.voteReply:
      return { kind: 'voteReply', from, to, term, granted: flag };
    case KIND.append:
      return decodeAppend(frame, from, to, term);
    case KIND.appendReply: {
      const [index, hintIndex, hintTerm] = [field(0), field(1), field(2)];
      return { kind: 'appendReply', from, to, term, success: flag, index, hintIndex, hintTerm };
    }
    case KIND.heartbeat:
      return { kind: 'heartbeat', from, to, term, commitIndex: field(0), round: field(1) };
    case KIND.heartbeatReply:
      return { kind: 'heartbeatReply', from, to, term, round: field(0) };
    case KIND.commit:
      return { kind: 'commit', from, to, term, index: field(0), indexTerm: field(1), commitIndex: field(2) };
    case KIND.timeoutNow:
      return { kind: 'timeoutNow', from, to, term };
    case KIND.readIndex:
      return { kind: 'readIndex', from, to, term, id: field(0) };
    case KIND.readIndexReply:
      return { kind: 'readIndexReply', from, to, term, id: field(0), index: field(1) - 1 };
    case KIND.proposal: {
      const bytes = frame.subarray(HEAD_BYTES + 3 * FIELD_BYTES);
      return { kind: 'proposal', term, session: field(0), sequence: field(1), oldestSequence: field(2), bytes };
    }
    case KIND.proposalRefused:
      return { kind: 'proposalRefused', term, session: field(0), expectedSequence: field(1) };
    default:
      throw invalid(from, `is of unknown kind ${kind}`);
  }
}

function decodeAppend(frame: Buffer, from: NodeId, to: NodeId, term: number): Message {
  const prevIndex = readField(frame, 0, from);
  const prevTerm = readField(frame, 1, from);
  const commitIndex = readField(frame, 2, from);
  const entries: Entry[] = [];
  let lastTerm = prevTerm;
  for (let at = HEAD_BYTES + 3 * FIELD_BYTES; at < frame.length; ) {
    const entry = readEntry(frame, at);
    if (entry.index !== prevIndex + entries.length + 1) throw invalid(from, 'has a gap between its entries');
    if (entry.term < lastTerm || entry.term > term) throw invalid(from, 'has an entry of an impossible term');
    lastTerm = entry.term;
    entries.push(entry);
    at += entry.bytes.length;
  }
  return { kind: 'append', from, to, term, prevIndex, prevTerm, commitIndex, entries };
}

function readField(frame: Buffer, position: number, from: NodeId): number {
  const at = HEAD_BYTES + position * FIELD_BYTES;
  if (at + FIELD_BYTES > frame.length) throw invalid(from, 'is cut off');
  const value = readUint64(frame, at);
  if (!Number.isSafeInteger(value)) throw invalid(from, 'has a number out of range');
  return value;
}

function invalid(from: NodeId, what: string): RaftkvError {
  return new RaftkvError(
    'MESSAGE_INVALID',
    `a message from node ${from} ${what}`,
    'Run the same version of raftkv on all nodes.',
  );
}
