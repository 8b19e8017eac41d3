import type { Mutant } from './mutant.ts';

/** Faults of what surrounds the algorithm: the way of batches and reads, the state machine, the client port. */
export const nodeMutants: readonly Mutant[] = [
  {
    name: 'forget-vote',
    fault: 'forgets its vote at a restart',
    file: 'replica/log/recovery.ts',
    within: 'onHardState',
    find: 'this.hardState = decodeHardState(bytes);',
    replace: 'this.hardState = { ...decodeHardState(bytes), vote: NO_NODE };',
  },
  {
    name: 'lose-tail-on-recovery',
    fault: 'drops the last entry of its log at a restart, as if it were torn',
    file: 'replica/loop/open-replica.ts',
    within: 'openReplica',
    find: 'warnOfNonMembers(options, recovery);',
    replace: `const { log } = recovery;
if (log.lastIndex > Math.max(log.commitIndex, log.snapshotIndex)) log.truncateFrom(log.lastIndex);`,
  },
  {
    name: 'entries-before-term',
    fault: 'writes entries before the term that they belong to',
    file: 'replica/log/persister.ts',
    within: '#write',
    find: 'this.#wal.append({',
    replace: `if (hardState !== null && append.length > 0) {
  const entries = append.map((entry) => entry.bytes);
  this.#wal.append({ reset, hardState: null, firstIndex: append[0]?.index ?? 0, entries, done: () => {} });
  const alone = { reset: null, firstIndex: 0, entries: [], done: () => this.#complete() };
  this.#wal.append({ hardState: encodeHardState(hardState), ...alone });
  return;
}
this.#wal.append({`,
  },
  {
    name: 'promise-before-disk',
    fault: 'sends promises at once where they should wait for a write that is under way',
    file: 'replica/log/persister.ts',
    within: '#promise',
    find: 'if (this.#pending.length === 0) {',
    replace: 'if (messages.length > 0) {',
  },
  {
    name: 'session-reused',
    fault: 'gives the session id of an earlier incarnation to its batches',
    file: 'storage/meta.ts',
    within: 'openMeta',
    find: 'const incarnation = Math.max(before.incarnation + 1, options.incarnationMin ?? 1);',
    replace: 'const incarnation = before.incarnation > 0 ? before.incarnation : (options.incarnationMin ?? 1);',
    also: {
      file: 'replica/lifecycle/session-start.ts',
      within: 'onceUnused',
      find: 'if (appliedSessionId < sessionId) {',
      replace: 'if (appliedSessionId < Infinity) {',
    },
  },
  {
    name: 'duplicates-applied',
    fault: 'applies a batch again that was sent again (etcd 18424)',
    file: 'kv/sessions.ts',
    within: 'admit',
    find: "if (sequence <= progress.lastSequence) return 'duplicate';",
    replace: '',
  },
  {
    name: 'sequencer-outlives-term',
    fault: 'remembers in a new term which batches its log held in an old one',
    file: 'replica/writes/proposals.ts',
    within: 'judge',
    find: 'this.#expected.clear();',
    replace: '',
  },
  {
    name: 'same-bytes-twice',
    fault: 'writes the header of an entry into bytes that another entry or link still uses',
    file: 'replica/writes/proposals.ts',
    within: 'receive',
    find: 'this.#taken.push(sent ? Buffer.from(proposal.bytes) : proposal.bytes);',
    replace: 'this.#taken.push(sent ? proposal.bytes : proposal.bytes);',
  },
  {
    name: 'never-sent-again',
    fault: 'sends a batch once only, whatever becomes of the leader',
    file: 'replica/writes/proposals.ts',
    within: '#sendBatch',
    find: 'if (batch === undefined) return 0;',
    replace: `if (batch === undefined) return 0;
if (batch.sent) return 1;`,
  },
  {
    name: 'local-clock',
    fault: 'applies with a time of its own',
    file: 'kv/state-machine.ts',
    within: 'apply',
    find: 'this.#advanceTo(header.timeMs);',
    replace: 'this.#advanceTo(header.timeMs + Math.floor(Math.random() * 1000));',
  },
  {
    name: 'time-goes-back',
    fault: 'lets cluster time follow a leader whose clock is behind',
    file: 'kv/state-machine.ts',
    within: '#advanceTo',
    find: 'if (timeMs <= this.#timeMs) return;',
    replace: '',
  },
  {
    name: 'read-before-applied',
    fault: 'serves a confirmed read before its index is applied',
    file: 'replica/reads/read-batches.ts',
    within: 'serve',
    find: 'if (batch.index > appliedIndex) break;',
    replace: 'if (batch.index > appliedIndex + 1) break;',
  },
  {
    name: 'read-any-answer',
    fault: 'takes the answer to an earlier question for the answer to this one',
    file: 'replica/reads/read-batches.ts',
    within: 'confirm',
    find: 'if (this.#asked === null || this.#askedId !== id) return;',
    replace: 'if (this.#asked === null || id < 0) return;',
  },
  {
    name: 'read-id-reused',
    fault: 'asks again under the same id, so that a late answer to the first question fits the second (etcd 20418)',
    file: 'replica/reads/read-batches.ts',
    within: '#ask',
    find: 'this.#askedId = this.#nextId++;',
    replace: 'this.#askedId = this.#nextId;',
  },
  {
    name: 'read-unconfirmed',
    fault: 'serves what it has applied without asking anybody',
    file: 'server/clients/connection.ts',
    within: '#placeRead',
    find: `slot.awaited = 1;
this.replica.read(slot);`,
    replace: 'slot.awaited = 0;',
  },
  {
    name: 'read-goes-by-old-confirmation',
    fault: 'lets reads go by a confirmation that was asked for before they came',
    file: 'server/clients/connection.ts',
    within: '#take',
    find: 'this.#readAsked = false;',
    replace: '',
  },
  {
    name: 'write-overtakes-read',
    fault: 'proposes a write before the reads in front of it are executed',
    file: 'server/clients/connection.ts',
    within: '#place',
    find: "if (kind === 'write' && this.#unexecutedReads > 0) return false;",
    replace: '',
  },
  {
    name: 'reply-to-another-request',
    fault: 'frees a slot whose answer is still to come, for another request to get it',
    file: 'server/clients/connection.ts',
    within: '#closed',
    find: `if (slot.awaited > 0) slot.owner = null;
else this.#host.slots.give(slot);`,
    replace: 'this.#host.slots.give(slot);',
  },
  {
    name: 'timeout-says-stored',
    fault: 'says that a write is done which only timed out',
    file: 'server/requests/answers.ts',
    within: 'WRITE_FAILURES',
    find: 'timeout: WRITE_TIMED_OUT',
    replace: 'timeout: STORED',
  },
  {
    name: 'stop-says-stored',
    fault: 'says that a write is done which the stop of the node interrupted',
    file: 'server/requests/answers.ts',
    within: 'WRITE_FAILURES',
    find: 'stopping: WRITE_STOPPED',
    replace: 'stopping: STORED',
  },
  {
    name: 'fetched-unchecked',
    fault: 'sends entries read back from disk though the log was truncated meanwhile',
    file: 'raft/replication.ts',
    within: 'handleReadBack',
    find: 'const fits = entries[0]?.index === progress.nextIndex && agreesWithLog(core, entries);',
    replace: 'const fits = entries.length > 0;',
  },
  {
    name: 'applier-skips',
    fault: 'goes on behind what it has read back from disk as if it had applied that too',
    file: 'replica/writes/applier.ts',
    within: '#readBack',
    find: 'const last = Math.min(log.commitIndex, log.firstCachedIndex - 1);',
    replace: 'const last = Math.min(log.lastIndex, log.firstCachedIndex - 1);',
  },
];
