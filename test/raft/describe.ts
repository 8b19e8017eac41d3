import { DIRECTORY_UNKNOWN, decodeConfiguration, isJoint } from '../../src/raft/state/configuration.ts';
import { ENTRY_HEADER_BYTES } from '../../src/raft/state/entry.ts';
import type { Configuration, Entry, Input, MemberChange, Message } from '../../src/raft/state/types.ts';

/**
 * Messages, entries and inputs as short text, for transcripts and traces. `5@2` is the entry at index 5, of term 2.
 */
export function describeMessage(message: Message): string {
  const { from, to, kind, term } = message;
  return `${from}->${to} ${kind} term ${term}${details(message)}`;
}

function details(message: Message): string {
  switch (message.kind) {
    case 'preVote':
      return `, log ends at ${message.lastIndex}@${message.lastTerm}`;
    case 'vote':
      return `, log ends at ${message.lastIndex}@${message.lastTerm}${message.transfer ? ', handed over' : ''}`;
    case 'preVoteReply':
    case 'voteReply':
      return `${message.granted ? ', granted' : ', rejected'}${withoutRights(message)}`;
    case 'append':
      return `, after ${message.prevIndex}@${message.prevTerm} [${describeEntries(message.entries)}] commit ${message.commitIndex}`;
    case 'appendReply':
      if (message.success) return `, accept ${message.index}${withoutRights(message)}`;
      return `, reject ${message.index}, hint ${message.hintIndex}@${message.hintTerm}${withoutRights(message)}`;
    case 'heartbeat':
      return `, round ${message.round} commit ${message.commitIndex}`;
    case 'heartbeatReply':
      return `, round ${message.round}${withoutRights(message)}`;
    case 'commit':
      return `, commit ${message.commitIndex} if ${message.index}@${message.indexTerm} matches`;
    case 'timeoutNow':
      return '';
    case 'snapshotOffer':
      return `, of ${message.snapshotIndex}@${message.snapshotTerm}`;
    case 'readIndex':
      return `, read ${message.id}${withoutRights(message)}`;
    case 'recovering':
      return `, directory ${message.directoryId}`;
    case 'readIndexReply':
      return message.index < 0 ? `, read ${message.id} rejected` : `, read ${message.id} at ${message.index}`;
  }
}

interface Speaking {
  readonly directoryId: number;
  readonly withoutRights: boolean;
  readonly diskFull?: boolean;
}

function withoutRights(message: Speaking): string {
  const directoryId = message.directoryId === 0 ? '' : `, directory ${message.directoryId}`;
  return `${directoryId}${message.withoutRights ? ', without rights' : ''}${message.diskFull === true ? ', disk full' : ''}`;
}

/** `1 2 3`; `2 3 and 1 2 3` while both decide; then what else there is. */
export function describeConfiguration(configuration: Configuration): string {
  const { voters, votersOutgoing, learners, learnersNext, details } = configuration;
  const parts = [`voters ${voters.join(' ')}${isJoint(configuration) ? ` and ${votersOutgoing.join(' ')}` : ''}`];
  if (learners.length > 0) parts.push(`learners ${learners.join(' ')}`);
  if (learnersNext.length > 0) parts.push(`to be learners ${learnersNext.join(' ')}`);
  for (const { id, directoryId } of details)
    if (directoryId !== 0 && directoryId !== DIRECTORY_UNKNOWN) parts.push(`${id} is directory ${directoryId}`);
  return parts.join(', ');
}

export function describeEntry(entry: Entry): string {
  return `${entry.index}@${entry.term} ${payloadOf(entry)}`;
}

export function describeEntries(entries: readonly Entry[]): string {
  return entries.map(describeEntry).join(', ');
}

/** The payload of an entry of the tests, which is text; the kind where there is none. */
export function payloadOf(entry: Entry): string {
  switch (entry.kind) {
    case 'data':
      return entry.bytes.toString('latin1', ENTRY_HEADER_BYTES);
    case 'noop':
      return entry.kind;
    case 'configuration':
      return `(${describeConfiguration(decodeConfiguration(entry.bytes, ENTRY_HEADER_BYTES))})`;
  }
}

export function describeInput(input: Input): string {
  switch (input.kind) {
    case 'receive':
      return `receive ${describeMessage(input.message)}`;
    case 'propose':
      return `propose ${input.batches.map((bytes) => bytes.toString('latin1', ENTRY_HEADER_BYTES)).join(', ')}`;
    case 'read':
      return `read ${input.id}`;
    case 'persisted':
      return `persisted ${input.index}@${input.term}${input.hardState === null ? '' : ` and term ${input.hardState.term}`}`;
    case 'applied':
      return `applied ${input.index}`;
    case 'readBack':
      return `readBack for ${input.peer}: ${describeEntries(input.entries)}`;
    case 'linkLost':
      return `linkLost ${input.peer}`;
    case 'linkUp':
      return `linkUp ${input.peer}`;
    case 'transferLeadership':
      return `transferLeadership to ${input.to === 0 ? 'the most advanced voter' : input.to}`;
    case 'snapshotStored':
      return `snapshotStored ${input.index}@${input.term}`;
    case 'compact':
      return `compact ${input.index}`;
    case 'snapshotReceived':
      return `snapshotReceived ${input.index}@${input.term}`;
    case 'snapshotStalled':
      return `snapshotStalled ${input.peer}`;
    case 'changeMembers':
      return `changeMembers: ${describeChange(input.change)}`;
    case 'begin':
      return `begin with voters ${input.first.voters.join(' ')}`;
    case 'lifecycle':
      return `lifecycle ${input.lifecycle}${input.directoryId === 0 ? '' : `, directory ${input.directoryId}`}`;
    case 'diskFull':
      return input.full ? 'diskFull' : 'diskFull no more';
    case 'tick':
      return 'tick';
  }
}

function describeChange(change: MemberChange): string {
  const place = change.op === 'add' && change.replaces !== 0 ? ` in place of ${change.replaces}` : '';
  return `${change.op} ${change.id}${place}${change.op === 'add' && change.joins ? ', to become a voter' : ''}`;
}
