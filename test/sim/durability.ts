import type { Core } from '../../src/raft/core.ts';
import { type Effects, type Input, NOBODY, type NodeId } from '../../src/raft/types.ts';
import type { World } from './world.ts';

/**
 * Promises rest on disks: a vote is said, and an acknowledgement given, only once it is written; a leader leads by votes
 * that are written, its own included; and what is committed is written on a quorum. Judged by the completions that the
 * log files reported, whatever the core itself believes.
 */
interface Written {
  core: Core;
  term: number;
  vote: NodeId;
  /** The log is written up to here. */
  index: number;
}

export class Durability {
  readonly #world: World;
  readonly #quorum: number;
  readonly #nodes = new Map<NodeId, Written>();
  /** Who has written a vote, by term and candidate. */
  readonly #votes = new Map<string, Set<NodeId>>();

  constructor(world: World, nodes: number) {
    this.#world = world;
    this.#quorum = Math.floor(nodes / 2) + 1;
  }

  /** What was written is there again after a start; and what a start has read back, it has also made durable. */
  started(core: Core): void {
    const before = this.#nodes.get(core.id);
    if (before !== undefined) this.#compare(before, core);
    this.#voted(core.id, core.term, core.vote);
    this.#nodes.set(core.id, { core, term: core.term, vote: core.vote, index: core.log.lastIndex });
  }

  /** Also of a process that has just died: what was reported to it as written is. */
  wrote(core: Core, input: Input): void {
    const written = this.#nodes.get(core.id);
    if (written === undefined || written.core !== core || input.kind !== 'persisted') return;
    const { term, index, hardState } = input;
    if (hardState !== null) {
      Object.assign(written, { term: hardState.term, vote: hardState.vote });
      this.#voted(core.id, hardState.term, hardState.vote);
    }
    if (index > written.index && core.log.termAt(index) === term) written.index = index;
  }

  elected(core: Core): void {
    const voters = this.#votes.get(`${core.term} ${core.id}`) ?? new Set();
    if (voters.size >= this.#quorum) return;
    this.#fail(`node ${core.id} leads in term ${core.term} by the written votes of ${[...voters].join(', ')} only`);
  }

  #voted(id: NodeId, term: number, vote: NodeId): void {
    if (vote === NOBODY) return;
    const key = `${term} ${vote}`;
    const voters = this.#votes.get(key);
    if (voters === undefined) this.#votes.set(key, new Set([id]));
    else voters.add(id);
  }

  stepped(core: Core, effects: Effects, committedBefore: number): void {
    const written = this.#nodes.get(core.id);
    if (written === undefined) return;
    if (effects.truncateFrom > 0) written.index = Math.min(written.index, effects.truncateFrom - 1);
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
    if (core.role === 'leader' && commitIndex > committedBefore) this.#checkCommitted(core, commitIndex);
  }

  #compare({ core: before, term, vote, index }: Written, core: Core): void {
    if (core.log.termAt(index) !== before.log.termAt(index)) {
      const now = `its log has term ${core.log.termAt(index)} there and ends at ${core.log.lastIndex}`;
      this.#fail(
        `node ${core.id} had written entry ${index} of term ${before.log.termAt(index)}; after its start ${now}`,
      );
    }
    if (core.term < term || (core.term === term && vote !== NOBODY && core.vote !== vote)) {
      const now = `it starts with term ${core.term}, vote ${core.vote}`;
      this.#fail(`node ${core.id} had written term ${term}, vote ${vote}; ${now}`);
    }
  }

  #checkCommitted(leader: Core, index: number): void {
    const term = leader.log.termAt(index);
    const holders = [...this.#nodes.values()].filter(
      (written) => written.index >= index && written.core.log.termAt(index) === term,
    );
    if (holders.length >= this.#quorum) return;
    const where = holders.map(({ core }) => core.id).join(', ');
    this.#fail(`leader ${leader.id} commits entry ${index}, which is on the disks of ${where} only`);
  }

  #fail(message: string): void {
    this.#world.fail('promises rest on disks', message);
  }
}
