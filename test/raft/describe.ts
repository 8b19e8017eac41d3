import { ENTRY_HEADER_BYTES } from '../../src/raft/entry.ts';
import type { Entry, Input, Message } from '../../src/raft/types.ts';

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
      return message.granted ? ', granted' : ', refused';
    case 'append':
      return `, after ${message.prevIndex}@${message.prevTerm} [${describeEntries(message.entries)}] commit ${message.commitIndex}`;
    case 'appendReply':
      if (message.success) return `, holds up to ${message.index}`;
      return `, refused after ${message.index}, may agree at ${message.hintIndex}@${message.hintTerm}`;
    case 'heartbeat':
      return `, round ${message.round} commit ${message.commitIndex}`;
    case 'heartbeatReply':
      return `, round ${message.round}`;
    case 'commit':
      return ` ${message.commitIndex} where ${message.index}@${message.indexTerm}`;
    case 'timeoutNow':
      return '';
    case 'readIndex':
      return `, read ${message.id}`;
    case 'readIndexReply':
      return message.index < 0 ? `, read ${message.id} refused` : `, read ${message.id} at ${message.index}`;
  }
}

export function describeEntry(entry: Entry): string {
  return `${entry.index}@${entry.term} ${payloadOf(entry)}`;
}

export function describeEntries(entries: readonly Entry[]): string {
  return entries.map(describeEntry).join(', ');
}

/** The payload of an entry of the tests, which is text; the kind where there is none. */
export function payloadOf(entry: Entry): string {
  return entry.kind === 'data' ? entry.bytes.toString('latin1', ENTRY_HEADER_BYTES) : entry.kind;
}

export function describeInput(input: Input): string {
  switch (input.kind) {
    case 'receive':
      return `receives ${describeMessage(input.message)}`;
    case 'propose':
      return `is asked to write ${input.batches.map((bytes) => bytes.toString('latin1', ENTRY_HEADER_BYTES)).join(', ')}`;
    case 'read':
      return `is asked for read ${input.id}`;
    case 'persisted':
      return `hears that ${input.index}@${input.term}${input.hardState === null ? '' : ` and term ${input.hardState.term}`} is on disk`;
    case 'applied':
      return `has applied up to ${input.index}`;
    case 'fetched':
      return `has read back for ${input.peer}: ${describeEntries(input.entries)}`;
    case 'linkLost':
      return `loses the link to ${input.peer}`;
    case 'linkUp':
      return `has a link to ${input.peer}`;
    case 'transferLeadership':
      return `is asked to hand over to ${input.to === 0 ? 'anyone' : input.to}`;
    case 'tick':
      return 'ticks';
  }
}
