import { RaftkvError } from '../../base/errors.ts';
import { readUint64, writeUint64 } from '../../base/uint64.ts';
import { decodeConfiguration, encodeConfiguration } from '../../raft/state/configuration.ts';
import { readEntry } from '../../raft/state/entry.ts';
import type { Configuration, Entry, LifecycleStatus, Message, NodeId } from '../../raft/state/types.ts';

/**
 * What peers say to each other, as the payload of one frame of the transport. Little-endian; every message begins with
 *
 * ```
 *  0  u8  kind     see KIND
 *  1  u8  flags    1 granted, success, transfer, or a first configuration follows; 2 the sender knows that it has no rights; 4 disk or cluster full
 *  2  u16 zero
 *  4  u64 term
 * 12  u64 × n      the fields of the kind, in the order in which `FIELDS` names them
 * ```
 *
 * and an append or a proposal ends with its entries as they are on disk (`raft/entry.ts`). Who sends and who receives
 * is known from the link.
 */

/** A batch on its way from its proposer to the leader of `term`. */
export interface Proposal {
  readonly kind: 'proposal';
  readonly term: number;
  /** The batch's place in its proposer's session. */
  readonly sequence: number;
  /** The proposer's oldest batch that it has not yet seen applied: where a leader that knows nothing of it begins. */
  readonly oldestSequence: number;
  readonly sessionId: number;
  /** The batch, with room for the entry's header in front. */
  readonly bytes: Buffer;
}

/** The receiver of a proposal did not take it. */
export interface ProposalRefused {
  readonly kind: 'proposalRefused';
  readonly term: number;
  readonly sessionId: number;
  /** Send again from this sequence; 0 where the receiver does not lead. */
  readonly expectedSequence: number;
}

/** The lifecycle of the sender. A node sends it over each new link before anything else, and when it changes. */
export interface LifecycleMessage {
  readonly kind: 'lifecycle';
  readonly lifecycle: LifecycleStatus;
  readonly directoryId: number;
  /** All nodes of the cluster that the sender knows of or would begin, ascending; see `Bootstrap`. */
  readonly nodes: readonly NodeId[];
  /** The first configuration of the sender's cluster, if its directory came in by it. */
  readonly first: Configuration | null;
}

/**
 * The newest configuration that the sender knows to be committed, and the entry it is from; in answer to a `lifecycle` message. So
 * a node that was away while members changed learns where the leader is, which it does not know and so refuses.
 */
export interface MembersNews {
  readonly kind: 'membersNews';
  readonly index: number;
  readonly configuration: Configuration;
}

export type PeerMessage = Message | Proposal | ProposalRefused | LifecycleMessage | MembersNews;

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
  snapshotOffer: 15,
  recovering: 16,
  lifecycle: 17,
  membersNews: 18,
} as const satisfies Record<PeerMessage['kind'], number>;

const FLAG_YES = 1;
const FLAG_WITHOUT_RIGHTS = 2;
const FLAG_FULL = 4;
const LIFECYCLE_STATUSES: readonly LifecycleStatus[] = ['uninitialized', 'recovering', 'normal'];

const HEAD_BYTES = 12;
const FIELD_BYTES = 8;

/** Encodes a message as the parts of one frame. Entries are not copied. */
export function encodeMessage(message: PeerMessage): Buffer[] {
  switch (message.kind) {
    case 'preVote':
      return [head(KIND.preVote, 0, message.term, [message.lastIndex, message.lastTerm])];
    case 'preVoteReply':
      return [
        head(KIND.preVoteReply, flagsOf(message.granted, message.withoutRights), message.term, [message.directoryId]),
      ];
    case 'vote':
      return [head(KIND.vote, flagsOf(message.transfer), message.term, [message.lastIndex, message.lastTerm])];
    case 'voteReply':
      return [
        head(KIND.voteReply, flagsOf(message.granted, message.withoutRights), message.term, [message.directoryId]),
      ];
    case 'append': {
      const { term, prevIndex, prevTerm, commitIndex, entries } = message;
      const parts = [head(KIND.append, 0, term, [prevIndex, prevTerm, commitIndex])];
      for (const entry of entries) parts.push(entry.bytes);
      return parts;
    }
    case 'appendReply': {
      const { success, withoutRights, diskFull, term, index, hintIndex, hintTerm, directoryId } = message;
      return [
        head(KIND.appendReply, flagsOf(success, withoutRights, diskFull), term, [
          index,
          hintIndex,
          hintTerm,
          directoryId,
        ]),
      ];
    }
    case 'heartbeat': {
      const { clusterFull, term, commitIndex, directoryId, round } = message;
      return [head(KIND.heartbeat, flagsOf(false, false, clusterFull), term, [commitIndex, directoryId, round])];
    }
    case 'heartbeatReply': {
      const { withoutRights, diskFull, term, round, directoryId } = message;
      return [head(KIND.heartbeatReply, flagsOf(false, withoutRights, diskFull), term, [round, directoryId])];
    }
    case 'commit':
      return [head(KIND.commit, 0, message.term, [message.index, message.indexTerm, message.commitIndex])];
    case 'timeoutNow':
      return [head(KIND.timeoutNow, 0, message.term, [])];
    case 'readIndex':
      return [
        head(KIND.readIndex, flagsOf(false, message.withoutRights), message.term, [message.id, message.directoryId]),
      ];
    case 'readIndexReply':
      // Indexes travel one higher, so that "not confirmed", -1, is 0.
      return [head(KIND.readIndexReply, 0, message.term, [message.id, message.index + 1])];
    case 'proposal': {
      const { term, sessionId, sequence, oldestSequence, bytes } = message;
      return [head(KIND.proposal, 0, term, [sessionId, sequence, oldestSequence]), bytes];
    }
    case 'proposalRefused':
      return [head(KIND.proposalRefused, 0, message.term, [message.sessionId, message.expectedSequence])];
    case 'snapshotOffer':
      return [head(KIND.snapshotOffer, 0, message.term, [message.snapshotIndex, message.snapshotTerm])];
    case 'recovering':
      return [head(KIND.recovering, 0, message.term, [message.directoryId])];
    case 'lifecycle': {
      const { lifecycle, directoryId, nodes, first } = message;
      const fields = [LIFECYCLE_STATUSES.indexOf(lifecycle), directoryId, nodes.length, ...nodes];
      const parts = [head(KIND.lifecycle, flagsOf(first !== null), 0, fields)];
      if (first !== null) parts.push(encodeConfiguration(first, 0));
      return parts;
    }
    case 'membersNews':
      return [head(KIND.membersNews, 0, 0, [message.index]), encodeConfiguration(message.configuration, 0)];
  }
}

function flagsOf(yes: boolean, withoutRights = false, full = false): number {
  return (yes ? FLAG_YES : 0) | (withoutRights ? FLAG_WITHOUT_RIGHTS : 0) | (full ? FLAG_FULL : 0);
}

function head(kind: number, flags: number, term: number, fields: readonly number[]): Buffer {
  const buffer = Buffer.allocUnsafe(HEAD_BYTES + fields.length * FIELD_BYTES);
  buffer.writeUInt32LE(kind | (flags << 8), 0);
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
  if (frame.length < HEAD_BYTES) throw invalid(from, 'is truncated');
  const kind = frame.readUInt8(0);
  const flags = frame.readUInt8(1);
  const yes = (flags & FLAG_YES) !== 0;
  const withoutRights = (flags & FLAG_WITHOUT_RIGHTS) !== 0;
  const full = (flags & FLAG_FULL) !== 0;
  const term = readUint64(frame, 4);
  if (!Number.isSafeInteger(term)) throw invalid(from, 'has a term out of range');
  const field = (position: number) => readField(frame, position, from);
  switch (kind) {
    case KIND.preVote:
      return { kind: 'preVote', from, to, term, lastIndex: field(0), lastTerm: field(1) };
    case KIND.preVoteReply:
      return { kind: 'preVoteReply', from, to, term, granted: yes, directoryId: field(0), withoutRights };
    case KIND.vote:
      return { kind: 'vote', from, to, term, transfer: yes, lastIndex: field(0), lastTerm: field(1) };
    case KIND.voteReply:
      return { kind: 'voteReply', from, to, term, granted: yes, directoryId: field(0), withoutRights };
    case KIND.append:
      return decodeAppend(frame, from, to, term);
    case KIND.appendReply: {
      const [index, hintIndex, hintTerm] = [field(0), field(1), field(2)];
      const reply = { directoryId: field(3), withoutRights, diskFull: full, index, hintIndex, hintTerm };
      return { kind: 'appendReply', from, to, term, success: yes, ...reply };
    }
    case KIND.heartbeat: {
      const [commitIndex, directoryId, round] = [field(0), field(1), field(2)];
      return { kind: 'heartbeat', from, to, term, commitIndex, directoryId, round, clusterFull: full };
    }
    case KIND.heartbeatReply:
      return {
        kind: 'heartbeatReply',
        from,
        to,
        term,
        round: field(0),
        directoryId: field(1),
        withoutRights,
        diskFull: full,
      };
    case KIND.commit:
      return { kind: 'commit', from, to, term, index: field(0), indexTerm: field(1), commitIndex: field(2) };
    case KIND.timeoutNow:
      return { kind: 'timeoutNow', from, to, term };
    case KIND.readIndex:
      return { kind: 'readIndex', from, to, term, id: field(0), directoryId: field(1), withoutRights };
    case KIND.readIndexReply:
      return { kind: 'readIndexReply', from, to, term, id: field(0), index: field(1) - 1 };
    case KIND.proposal: {
      const bytes = frame.subarray(HEAD_BYTES + 3 * FIELD_BYTES);
      return { kind: 'proposal', term, sessionId: field(0), sequence: field(1), oldestSequence: field(2), bytes };
    }
    case KIND.proposalRefused:
      return { kind: 'proposalRefused', term, sessionId: field(0), expectedSequence: field(1) };
    case KIND.snapshotOffer:
      return { kind: 'snapshotOffer', from, to, term, snapshotIndex: field(0), snapshotTerm: field(1) };
    case KIND.recovering:
      return { kind: 'recovering', from, to, term, directoryId: field(0) };
    case KIND.lifecycle: {
      const lifecycle = LIFECYCLE_STATUSES[field(0)];
      if (lifecycle === undefined) throw invalid(from, 'has an unknown lifecycle status');
      const nodes = readList(frame, 2, from);
      const first = yes ? decodeConfiguration(frame, HEAD_BYTES + (3 + nodes.length) * FIELD_BYTES) : null;
      return { kind: 'lifecycle', lifecycle, directoryId: field(1), nodes, first };
    }
    case KIND.membersNews: {
      const configuration = decodeConfiguration(frame, HEAD_BYTES + FIELD_BYTES);
      return { kind: 'membersNews', index: field(0), configuration };
    }
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
  if (at + FIELD_BYTES > frame.length) throw invalid(from, 'is truncated');
  const value = readUint64(frame, at);
  if (!Number.isSafeInteger(value)) throw invalid(from, 'has a number out of range');
  return value;
}

/** The field at `position` says how many of those behind it belong to the list. */
function readList(frame: Buffer, position: number, from: NodeId): number[] {
  const list: number[] = [];
  const length = readField(frame, position, from);
  while (list.length < length) list.push(readField(frame, position + 1 + list.length, from));
  return list;
}

function invalid(from: NodeId, what: string): RaftkvError {
  return new RaftkvError(
    'MESSAGE_INVALID',
    `a message from node ${from} ${what}`,
    'Run the same version of raftkv on all nodes.',
  );
}
