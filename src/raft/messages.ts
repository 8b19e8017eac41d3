import { RaftkvError } from '../base/errors.ts';
import { handlePreVote, handlePreVoteReply, handleVote, handleVoteReply, ignoresVote } from './election.ts';
import { followLeader, handleAppend, handleCommit, handleHeartbeat, refuseAppend } from './following.ts';
import { handleRecovering } from './membership.ts';
import { confirmReads, handleReadIndex, handleReadIndexReply, releaseHeldReads } from './reads.ts';
import { handleAppendReply, handleHeartbeatReply } from './replication.ts';
import { handleSnapshotOffer } from './snapshot.ts';
import { becomeFollower, type Core, send } from './state/core.ts';
import { type Message, NO_NODE, type ReadIndex } from './state/types.ts';
import { continueTransfer, handleTimeoutNow } from './transfer.ts';

/**
 * What a node does with each kind of message, by how the message's term compares with its own (§3.3). The paper has one
 * rule for a higher term: "convert to follower". Three kinds of message are exceptions here, and the table shows them.
 */
interface Rule<M> {
  /** The message is of an older term: its sender is behind. Most are ignored; some are answered so that it catches up. */
  readonly olderTerm: (core: Core, message: M) => void;
  /** The message is of a higher term. Returns false if it is to be ignored. */
  readonly higherTerm: (core: Core, message: M) => boolean;
  /** The message is of this node's term, perhaps since `higherTerm` adopted it. */
  readonly handle: (core: Core, message: M) => void;
}

/** A leader's message of a higher term: adopts the term and follows the sender. */
const followSender = (core: Core, { term, from }: Message): boolean => {
  becomeFollower(core, term, from);
  return true;
};

/** A higher term whose leader is not known: adopts it and follows no one yet. */
const adoptTerm = (core: Core, { term }: Message): boolean => {
  becomeFollower(core, term, NO_NODE);
  return true;
};

const ignore = (): void => {};

/** A leader that was partitioned in an old term, while its followers reached a newer one, must learn of that (etcd 8243). */
const refuseOldLeader = (core: Core, { from }: Message): void => refuseAppend(core, from, 0, 0, 0);

/** Of the leader of this term. This node cannot be it: one term has one leader. */
function fromLeader<M extends Message>(handle: (core: Core, message: M) => void): (core: Core, message: M) => void {
  return (core, message) => {
    if (core.leading !== null) {
      throw new RaftkvError('INVARIANT_BROKEN', `nodes ${core.id} and ${message.from} both lead in term ${core.term}`);
    }
    followLeader(core, message.from);
    handle(core, message);
  };
}

const RULES: { readonly [K in Message['kind']]: Rule<Extract<Message, { kind: K }>> } = {
  preVote: {
    olderTerm: handlePreVote,
    // It only asks about a term; no one is in that term yet.
    higherTerm: () => true,
    handle: handlePreVote,
  },
  preVoteReply: {
    olderTerm: ignore,
    // A grant names the term that was asked for. A refusal names the sender's own, which is really higher.
    higherTerm: (core, message) => message.granted || adoptTerm(core, message),
    handle: handlePreVoteReply,
  },
  vote: {
    // Refused, with this node's term: the candidate learns that its term is over.
    olderTerm: handleVote,
    higherTerm: (core, message) => !ignoresVote(core, message) && adoptTerm(core, message),
    handle: handleVote,
  },
  // Node 1 lost term 5 and campaigns in term 6. Node 2's late vote of term 5 must not count for term 6, in which node 2 may
  // have voted for node 3.
  voteReply: { olderTerm: ignore, higherTerm: adoptTerm, handle: handleVoteReply },
  append: { olderTerm: refuseOldLeader, higherTerm: followSender, handle: fromLeader(handleAppend) },
  appendReply: {
    // Node 1 led term 4; node 2 led term 5 and truncated the log of node 3; node 1 leads term 6. An acknowledgement of node 3
    // that is left over from term 4 speaks of entries that node 3 no longer has.
    olderTerm: ignore,
    higherTerm: adoptTerm,
    handle: (core, message) => {
      handleAppendReply(core, message);
      releaseHeldReads(core);
      continueTransfer(core);
    },
  },
  heartbeat: { olderTerm: refuseOldLeader, higherTerm: followSender, handle: fromLeader(handleHeartbeat) },
  heartbeatReply: {
    olderTerm: ignore,
    higherTerm: adoptTerm,
    handle: (core, message) => {
      handleHeartbeatReply(core, message);
      confirmReads(core);
    },
  },
  commit: { olderTerm: ignore, higherTerm: followSender, handle: fromLeader(handleCommit) },
  snapshotOffer: { olderTerm: refuseOldLeader, higherTerm: followSender, handle: fromLeader(handleSnapshotOffer) },
  // One of an older term is late: the leader that asked has been replaced, and a campaign would depose its successor.
  timeoutNow: { olderTerm: ignore, higherTerm: adoptTerm, handle: handleTimeoutNow },
  readIndex: { olderTerm: refuseRead, higherTerm: adoptTerm, handle: handleReadIndex },
  readIndexReply: {
    // What the leader of that term confirmed was asked for before the term ended, so it still holds.
    olderTerm: handleReadIndexReply,
    higherTerm: adoptTerm,
    handle: handleReadIndexReply,
  },
  recovering: { olderTerm: ignore, higherTerm: adoptTerm, handle: handleRecovering },
};

/** The reader is in an older term, so its request proves nothing about this one; it asks again when it has caught up. */
function refuseRead(core: Core, { from: to, id }: ReadIndex): void {
  send(core, { kind: 'readIndexReply', from: core.id, to, term: core.term, id, index: -1 });
}

/** A message arrived. Messages for another node are ignored. */
export function receive(core: Core, message: Message): void {
  if (message.to !== core.id) return;
  const rule = RULES[message.kind] as Rule<Message>;
  if (message.term > core.term && !rule.higherTerm(core, message)) return;
  if (message.term < core.term) rule.olderTerm(core, message);
  else rule.handle(core, message);
}
