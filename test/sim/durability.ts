import type { CoreSummary } from '../../src/raft/invariants.ts';
import type { Core } from '../../src/raft/state/core.ts';
import { jointVoteResult } from '../../src/raft/state/quorum.ts';
import {
  type Configuration,
  type Effects,
  type Entry,
  type HardState,
  type Input,
  NO_NODE,
  type NodeId,
} from '../../src/raft/state/types.ts';
import type { LogBase } from '../../src/storage/wal/types.ts';
import { truncatedFrom } from '../support/truncation.ts';
import type { World } from './world.ts';

/**
 * Promises rest on disks: a vote is said, and an acknowledgement given, only once it is written; a leader leads by votes
 * that are written, its own included; and what is committed is written on a quorum. Judged by the completions that the
 * log files reported, whatever the core itself believes.
 *
 * Rights belong to a directory. What a directory had written is remembered under its number also when its disk is
 * wiped: what it said before may still be on its way. It counts where a configuration names that directory, and nowhere else.
 */
interface Written {
  core: Core;
  term: number;
  vote: NodeId;
  /** The log is written up to here. */
  index: number;
  /** A snapshot up to here was installed, and the log file does not begin behind it yet; else 0. Nothing of it is acknowledged. */
  installing: number;
}

export class Durability {
  readonly #world: World;
  /** Of the directory that each node has now. */
  readonly #nodes = new Map<NodeId, Written>();
  /** Of every directory that has or had rights, by node and directory id. */
  readonly #directories = new Map<string, Written>();
  /** The last term that each log file was given to write. */
  readonly #termsGiven = new WeakMap<Core, number>();
  /** Which directories have written a vote, by term and candidate. */
  readonly #votes = new Map<string, Set<string>>();

  constructor(world: World) {
    this.#world = world;
  }

  /**
   * What was written is there again after a start; and what a start has read back, it has also made durable. A node
   * whose disk was damaged may have lost some of it, but must then be another directory.
   */
  started(core: Core): void {
    const written = { core, term: core.term, vote: core.vote, index: core.log.lastIndex, installing: 0 };
    this.#nodes.set(core.id, written);
    this.#termsGiven.set(core, core.term);
    this.#adopt(written);
  }

  /** Entries must not be on disk before the term that they belong to: a start would take part in that term again. */
  writing(core: Core, reset: LogBase | null, hardState: HardState | null, entries: readonly Entry[]): void {
    const term = hardState?.term ?? this.#termsGiven.get(core) ?? 0;
    this.#termsGiven.set(core, term);
    const lastTerm = entries.at(-1)?.term ?? reset?.term ?? 0;
    if (lastTerm > term) this.#fail(`node ${core.id} writes what is of term ${lastTerm}; its disk knows term ${term}`);
  }

  /** From now on the directory may have rights. An uninitialized one has none, and must not have promised anything. */
  #adopt(written: Written): void {
    const { core } = written;
    if (core.rights.lifecycle === 'uninitialized') {
      if (written.term > 0 && core.vote !== NO_NODE) this.#fail(`node ${core.id} is uninitialized and has voted`);
      return;
    }
    const key = keyOf(core.id, core.rights.directoryId);
    const before = this.#directories.get(key);
    if (before !== undefined) this.#compare(before, written);
    this.#directories.set(key, written);
    this.#voted(core, written.term, written.vote);
  }

  /** Also of a process that has just died: what was reported to it as written is. */
  wrote(core: Core, input: Input): void {
    const written = this.#nodes.get(core.id);
    if (written === undefined || written.core !== core || input.kind !== 'persisted') return;
    const { term, index, hardState } = input;
    if (hardState !== null) {
      // A log file that is begun behind a snapshot says so with a hard state.
      Object.assign(written, { term: hardState.term, vote: hardState.vote, installing: 0 });
      this.#voted(core, hardState.term, hardState.vote);
    }
    if (index > written.index && core.log.termAt(index) === term) written.index = index;
  }

  elected(core: Core): void {
    const voters = this.#votes.get(`${core.term} ${core.id}`) ?? new Set();
    if (isQuorum(core.configurations.current, (key) => voters.has(key))) return;
    const by = [...voters].join(', ');
    const { voters: of, votersOutgoing } = core.configurations.current;
    this.#fail(
      `node ${core.id} leads in term ${core.term} by the written votes of ${by} only, of ${of} and ${votersOutgoing}`,
    );
  }

  #voted(core: Core, term: number, vote: NodeId): void {
    if (vote === NO_NODE || core.rights.lifecycle === 'uninitialized') return;
    const key = `${term} ${vote}`;
    const voters = this.#votes.get(key);
    const voter = keyOf(core.id, core.rights.directoryId);
    if (voters === undefined) this.#votes.set(key, new Set([voter]));
    else voters.add(voter);
  }

  stepped(core: Core, input: Input, effects: Effects, before: CoreSummary): void {
    const written = this.#nodes.get(core.id);
    if (written === undefined) return;
    if (input.kind === 'lifecycle' || input.kind === 'begin') this.#adopt(written);
    if (input.kind === 'snapshotReceived' && input.term > written.term) {
      this.#fail(`node ${core.id} stores a snapshot of term ${input.term}; its disk knows term ${written.term}`);
    }
    const truncated = truncatedFrom(before, effects);
    if (truncated > 0) written.index = Math.min(written.index, truncated - 1);
    // The snapshot is durable, and so is what it stands for.
    const { install } = effects;
    if (install !== null) {
      written.index = install.resetLog ? install.index : Math.max(written.index, install.index);
      if (install.resetLog) written.installing = install.index;
    }
    if (core.log.persistedIndex > written.index) {
      this.#fail(`node ${core.id} takes entry ${core.log.persistedIndex} for written; its disk has ${written.index}`);
    }
    for (const message of effects.sendNow) {
      const isPromise =
        (message.kind === 'voteReply' && message.granted) || (message.kind === 'appendReply' && message.success);
      if (isPromise) this.#fail(`node ${core.id} sends a ${message.kind} that waits for no disk`);
    }
    if (core.role === 'leader' && (written.term !== core.term || written.vote !== core.id)) {
      this.#fail(
        `node ${core.id} leads in term ${core.term}; its disk knows term ${written.term}, vote ${written.vote}`,
      );
    }
    const { commitIndex } = core.log;
    if (core.role === 'leader' && commitIndex > before.commitIndex) this.#checkCommitted(core, commitIndex);
  }

  #compare({ core: before, term, vote, index, installing }: Written, now: Written): void {
    const { core } = now;
    // A snapshot that was damaged before the log file began behind it leaves an empty log, as before it came.
    const isForgotten = installing > 0 && core.rights.lifecycle === 'recovering' && core.log.lastIndex === 0;
    // Up to where its log begins, a snapshot stands for it.
    const termBefore = before.log.termAt(index);
    const isLost = index > core.log.snapshotIndex && termBefore !== -1 && core.log.termAt(index) !== termBefore;
    if (isLost && !isForgotten) {
      const has = `its log has term ${core.log.termAt(index)} there and ends at ${core.log.lastIndex}`;
      this.#fail(`node ${core.id} had written entry ${index} of term ${termBefore}; after its start ${has}`);
    }
    // An initial member that was wiped before anybody heard of its first campaign begins again. It alone had voted for itself,
    // and the candidate that asked for that vote has died with it.
    if (vote === core.id && before.log.lastIndex === 0) return;
    if (core.term < term || (core.term === term && vote !== NO_NODE && core.vote !== vote)) {
      const has = `it starts with term ${core.term}, vote ${core.vote}`;
      this.#fail(`node ${core.id} had written term ${term}, vote ${vote}; ${has}`);
    }
  }

  #checkCommitted(leader: Core, index: number): void {
    const term = leader.log.termAt(index);
    const holds = (key: string) => {
      const written = this.#directories.get(key);
      if (written === undefined || written.index < index) return false;
      const { log } = written.core;
      return log.termAt(index) === term || index < log.snapshotIndex;
    };
    const configuration = leader.configurations.current;
    if (isQuorum(configuration, holds)) return;
    const where = [...this.#directories.keys()].filter(holds).join(', ');
    this.#fail(
      `leader ${leader.id} commits entry ${index} for ${configuration.voters} and ${configuration.votersOutgoing}; ` +
        `it is on the disks of ${where} only`,
    );
  }

  #fail(message: string): void {
    this.#world.fail('promises rest on disks', message);
  }
}

export function keyOf(id: NodeId, directoryId: number): string {
  return `${id} ${directoryId}`;
}

/** Whether the directories that `agrees` names, by node and directory id, form a quorum of a configuration. */
export function isQuorum(configuration: Configuration, agrees: (key: string) => boolean): boolean {
  const { voters, votersOutgoing, details } = configuration;
  const votes = new Map(details.map(({ id, directoryId }) => [id, agrees(keyOf(id, directoryId))]));
  return jointVoteResult(voters, votersOutgoing, votes) === 'won';
}
