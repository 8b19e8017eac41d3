import { crc32 } from 'node:zlib';
import { readBatchHeader } from '../../src/kv/batch.ts';
import type { StateMachine } from '../../src/kv/state-machine.ts';
import { type CoreSummary, checkCore, checkStep, summarize } from '../../src/raft/invariants.ts';
import type { Core, PendingRead } from '../../src/raft/state/core.ts';
import { ENTRY_HEADER_BYTES } from '../../src/raft/state/entry.ts';
import type { Progress } from '../../src/raft/state/progress.ts';
import type { Effects, Entry, Input, LifecycleStatus, NodeId } from '../../src/raft/state/types.ts';
import type { ReplicaView } from '../../src/replica/observer.ts';
import { truncatedFrom } from '../support/truncation.ts';
import type { SimDisk } from './disk.ts';
import { Durability } from './durability.ts';
import { describe, type Incarnation } from './incarnation.ts';
import { isWithoutRights, MemberChecks } from './member-checks.ts';
import { ReadChecks } from './read-checks.ts';
import { SnapshotChecks } from './snapshot-checks.ts';
import type { World } from './world.ts';

/**
 * What must be true at every moment, of one core and of all of them together. Each replica tells its observer
 * (observed-replica.ts) what it does, and that is compared with all that was seen before, on any node, in any
 * incarnation.
 *
 * - Election safety: one leader a term.                          - Log matching: index and term name one entry.
 * - Leader completeness: a leader holds all that is committed.   - Commitment is for ever, and the same everywhere.
 * - State-machine safety: after the same entry, the same state.
 *
 * What concerns members is in member-checks.ts, snapshots in snapshot-checks.ts, disks in durability.ts, reads in
 * read-checks.ts (at the leader) and checked-reads.ts (for clients).
 */

/** Told of every step of a core that is alive, for targeted faults and the trace. `truncated`: the step truncated the log. */
export type StepListener = (
  incarnation: Incarnation,
  core: Core,
  input: Input,
  effects: Effects,
  truncated: boolean,
) => void;

/** What a step is compared with. */
export interface StateBefore {
  readonly summary: CoreSummary;
  readonly matched: ReadonlyMap<Progress, number>;
  readonly rounds: ReadonlyMap<PendingRead, number>;
  readonly withoutRights: boolean;
  readonly lifecycle: LifecycleStatus;
  /** The log holds the entry with which a snapshot ends that has been received. */
  readonly agrees: boolean;
}

interface SeenEntry {
  readonly crc: number;
  readonly previousTerm: number;
}

export class ClusterChecks {
  elections = 0;
  entriesCommitted = 0;
  truncations = 0;
  onStep: StepListener = () => {};
  readonly members: MemberChecks;
  readonly snapshots: SnapshotChecks;
  readonly #world: World;
  readonly #hashInterval: number;
  readonly durability: Durability;
  readonly #reads: ReadChecks;
  readonly #leaders = new Map<number, NodeId>();
  /** By index, then term. */
  readonly #entries: Map<number, SeenEntry>[] = [];
  /** The term of the committed entry, by index. */
  readonly #committed: number[] = [];
  /** The term of the core that was first seen to commit it, by index. */
  readonly #committedIn: number[] = [];
  /** The cluster's time at each node, as of the last entry that it applied. */
  readonly #timesMs = new WeakMap<Incarnation, number>();
  /** The state after each entry, by index. */
  readonly #states: (string | undefined)[] = [];

  constructor(world: World, initialMembers: readonly NodeId[], hashInterval: number) {
    this.#world = world;
    this.members = new MemberChecks(world, initialMembers, (index) => this.#committed[index]);
    this.snapshots = new SnapshotChecks(world, (index) => this.#committed[index]);
    this.durability = new Durability(world);
    this.#reads = new ReadChecks(world);
    this.#hashInterval = hashInterval;
  }

  get lastCommitted(): number {
    return Math.max(0, this.#committed.length - 1);
  }

  /** A replica is there, and has done nothing yet. */
  opened(incarnation: Incarnation, { core, stateMachine }: ReplicaView): void {
    this.#guard('invariants of a core', () => checkCore(core));
    this.#checkCommitted(core, 0);
    this.snapshots.recovered(incarnation, stateMachine, core.log.appliedIndex);
    this.durability.started(core);
    this.members.checkInForce(core);
    this.#checkRecovered(incarnation, core, stateMachine);
  }

  /** To be called before each step; `stepped` wants to know. */
  stepping(core: Core, input: Input): StateBefore {
    this.#reads.hear(core, input);
    return {
      summary: summarize(core),
      matched: matchesOf(core),
      rounds: roundsOf(core),
      withoutRights: isWithoutRights(core),
      lifecycle: core.rights.lifecycle,
      agrees: input.kind === 'snapshotReceived' && core.log.termAt(input.index) === input.term,
    };
  }

  /** Before any effect of the step is carried out. */
  stepped(
    incarnation: Incarnation,
    disk: SimDisk,
    core: Core,
    input: Input,
    effects: Effects,
    { summary: before, matched, rounds, withoutRights, lifecycle, agrees }: StateBefore,
  ): void {
    this.#guard('invariants of a core', () => {
      checkCore(core);
      checkStep(before, core);
    });
    if (before.role === 'leader' && core.role === 'leader') {
      this.#checkLeading(core, before.commitIndex, matched);
      this.#reads.check(core, input, effects, before.round, rounds);
    }
    const truncated = truncatedFrom(before, effects);
    if (truncated > 0) this.truncations++;
    for (const entry of effects.append) this.#checkEntry(core, entry.index, entry.term, entry.bytes);
    this.members.stepped(core, effects, withoutRights);
    this.members.checkHeartbeat(core, input, before.commitIndex);
    if (core.rights.lifecycle !== lifecycle) this.members.checkNoted(core, disk.durable());
    if (core.role === 'leader' && before.role !== 'leader') this.#checkElected(core);
    this.#checkVote(core, before, input, effects);
    this.#checkCommitted(core, before.commitIndex);
    this.durability.stepped(core, input, effects, before);
    this.snapshots.stepped(incarnation, core, input, effects, agrees);
    this.onStep(incarnation, core, input, effects, truncated > 0);
  }

  /** A committed batch has been applied: all nodes have the same state after it, and the cluster's time goes on. */
  applied(incarnation: Incarnation, machine: StateMachine, entry: Entry): void {
    if (machine.timeMs < (this.#timesMs.get(incarnation) ?? 0)) {
      this.#world.fail('time goes on', `cluster time fell at node ${incarnation.nodeId}`);
    }
    this.#timesMs.set(incarnation, machine.timeMs);
    this.#checkApplied(incarnation, machine, entry);
  }

  /** What the paper and the fields of the core promise of a leader from one step to the next. */
  #checkLeading(core: Core, committedBefore: number, matchedBefore: ReadonlyMap<Progress, number>): void {
    const { log, leading, id } = core;
    if (log.commitIndex > committedBefore && log.termAt(log.commitIndex) !== core.term) {
      this.#world.fail('commits its own term only', `leader ${id} commits entry ${log.commitIndex} by counting copies`);
    }
    // Another directory has progress of its own.
    if ([...matchedBefore].some(([progress, match]) => progress.matchIndex < match)) {
      this.#world.fail('progress does not go back', `leader ${id} forgets what a follower has acknowledged`);
    }
    if ((leading?.transfer?.deadline ?? Infinity) < core.now) {
      this.#world.fail('a transfer ends', `leader ${id} has been handing over for more than an election timeout`);
    }
  }

  /** A vote goes to a log that is at least as up-to-date as the voter's (§3.6.1). */
  #checkVote(core: Core, before: CoreSummary, input: Input, effects: Effects): void {
    if (input.kind !== 'receive' || input.message.kind !== 'vote') return;
    const granted = effects.sendAfterPersist.some((reply) => reply.kind === 'voteReply' && reply.granted);
    const { lastTerm, lastIndex, from } = input.message;
    if (!granted || lastTerm > before.lastTerm) return;
    if (lastTerm === before.lastTerm && lastIndex >= before.lastIndex) return;
    const own = `${before.lastIndex}@${before.lastTerm}`;
    this.#world.fail(
      'votes go to the better log',
      `node ${core.id} (${own}) votes for ${from} (${lastIndex}@${lastTerm})`,
    );
  }

  #checkElected(core: Core): void {
    const { id } = core;
    this.elections++;
    this.durability.elected(core);
    const other = this.#leaders.get(core.term);
    if (other !== undefined && other !== id) {
      this.#world.fail('election safety', `nodes ${other} and ${id} were both elected in term ${core.term}`);
    }
    this.#leaders.set(core.term, id);
    // An election of an earlier term may come to its end late; it need not know what later leaders committed.
    let last = this.lastCommitted;
    while (last > 0 && (this.#committedIn[last] ?? 0) >= core.term) last--;
    const term = core.log.termAt(last);
    // What a snapshot stands for was committed, and is as it was (snapshot-checks.ts).
    if (last < core.log.snapshotIndex) return;
    if (last > 0 && term !== this.#committed[last]) {
      const has = term === -1 ? `ends at ${core.log.lastIndex}` : `has term ${term} there`;
      this.#world.fail(
        'leader completeness',
        `node ${id}, elected in term ${core.term}, lacks entry ${last} of term ${this.#committed[last]}: its log ${has}`,
      );
    }
  }

  #checkEntry(core: Core, index: number, term: number, bytes: Buffer): void {
    const seen = { crc: crc32(bytes), previousTerm: core.log.termAt(index - 1) };
    this.#entries[index] ??= new Map();
    const known = this.#entries[index].get(term);
    if (known === undefined) {
      this.#entries[index].set(term, seen);
      return;
    }
    if (known.crc !== seen.crc || known.previousTerm !== seen.previousTerm) {
      this.#world.fail(
        'log matching',
        `node ${core.id} has another entry ${index} of term ${term} than was seen before`,
      );
    }
  }

  #checkCommitted(core: Core, from: number): void {
    const { commitIndex } = core.log;
    for (let index = Math.max(from + 1, core.log.snapshotIndex); index <= commitIndex; index++) {
      if (index === 0) continue;
      const term = core.log.termAt(index);
      const known = this.#committed[index];
      if (known === undefined && index > this.lastCommitted + 1) {
        this.#world.fail('committed for ever', `node ${core.id} holds a snapshot up to ${index}, never committed`);
      } else if (known === undefined) {
        this.#committed[index] = term;
        this.#committedIn[index] = core.term;
        this.entriesCommitted++;
        this.#world.hash(index);
      } else if (known !== term) {
        this.#world.fail(
          'committed for ever',
          `node ${core.id} commits entry ${index} of term ${term}; one of term ${known} was committed there`,
        );
      }
    }
  }

  #checkApplied(incarnation: Incarnation, machine: StateMachine, { index, term, bytes }: Entry): void {
    const { proposer } = readBatchHeader(bytes, ENTRY_HEADER_BYTES);
    const state = this.#stateOf(machine, term, index, proposer);
    const known = this.#states[index];
    this.#states[index] ??= state;
    if (known !== undefined && known !== state) {
      const what = `after entry ${index} from node ${proposer}`;
      this.#world.fail(
        'state-machine safety',
        `node ${incarnation.nodeId} has state ${state} ${what}, another had ${known}`,
      );
    }
  }

  #stateOf(machine: StateMachine, term: number, index: number, proposer: NodeId): string {
    const session = machine.session(proposer);
    const hash = index % this.#hashInterval === 0 ? machine.hash() : '';
    const counters = `${machine.items} ${machine.storeBytes} ${machine.totalItems} ${machine.casCounter}`;
    const times = `${machine.timeMs} ${machine.flushAtMs}`;
    return `${term} ${counters} ${times} ${session?.sessionId} ${session?.lastSequence} ${hash}`;
  }

  /** What a start made of its disk: entries are those that were seen, and commitment is no bolder than it was. */
  #checkRecovered(incarnation: Incarnation, core: Core, machine: StateMachine): void {
    const { log } = core;
    for (let index = Math.max(1, log.firstCachedIndex); index <= log.lastIndex; index++) {
      const entry = log.cached(index);
      if (entry !== undefined) this.#checkEntry(core, entry.index, entry.term, entry.bytes);
    }
    this.#checkCommitted(core, 0);
    const last = log.cached(log.appliedIndex);
    const known = this.#states[log.appliedIndex];
    if (last === undefined || last.kind !== 'data' || known === undefined) return;
    const { proposer } = readBatchHeader(last.bytes, ENTRY_HEADER_BYTES);
    const state = this.#stateOf(machine, last.term, last.index, proposer);
    if (state === known) return;
    const message = `node ${incarnation.nodeId} recovered entry ${last.index} to state ${state}, another had ${known}`;
    this.#world.fail('state-machine safety', message);
  }

  #guard(check: string, action: () => void): void {
    try {
      action();
    } catch (error) {
      this.#world.fail(check, describe(error));
    }
  }
}

/** What the leader knows of its followers. */
function matchesOf(core: Core): ReadonlyMap<Progress, number> {
  if (core.leading === null) return NONE;
  const matches = new Map<Progress, number>();
  for (const progress of core.leading.progress.values()) matches.set(progress, progress.matchIndex);
  return matches;
}

const NONE: ReadonlyMap<Progress, number> = new Map();

/** The reads that wait at a leader, and the round of each as of now. */
function roundsOf(core: Core): ReadonlyMap<PendingRead, number> {
  if (core.leading === null || core.leading.reads.length === 0) return NO_READS;
  return new Map(core.leading.reads.map((read) => [read, read.round]));
}

const NO_READS: ReadonlyMap<PendingRead, number> = new Map();
