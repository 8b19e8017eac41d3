import type { StateMachine } from '../../src/kv/state-machine.ts';
import type { Core } from '../../src/raft/state/core.ts';
import type { Progress } from '../../src/raft/state/progress.ts';
import type { Effects, Input } from '../../src/raft/state/types.ts';
import type { Incarnation } from './incarnation.ts';
import type { World } from './world.ts';

/**
 * A snapshot is the state as of its index, whatever was applied while it was written; what it stands for is committed;
 * and the log goes only behind one that is durable.
 */
export class SnapshotChecks {
  /** Snapshots taken, installed from elsewhere, and logs compacted. */
  taken = 0;
  installed = 0;
  /** Of those installed: the log held all of it, and went on. */
  kept = 0;
  compactions = 0;
  readonly #world: World;
  readonly #committedTermAt: (index: number) => number | undefined;
  /** Of the whole state, sessions included, wherever one has been taken or loaded. */
  readonly #hashes = new Map<number, string>();
  /** Of each follower that a leader has begun to offer a snapshot: the ticks since it last did. */
  readonly #sinceOffer = new WeakMap<Progress, number>();
  /** Whose state is being replaced: the index that the core says, and what for. */
  readonly #installing = new WeakMap<Incarnation, number>();

  constructor(world: World, committedTermAt: (index: number) => number | undefined) {
    this.#world = world;
    this.#committedTermAt = committedTermAt;
  }

  recovered(incarnation: Incarnation, machine: StateMachine, index: number): void {
    this.#checkState(incarnation, machine, index, 'has recovered');
  }

  begins(incarnation: Incarnation, machine: StateMachine, index: number): void {
    this.taken++;
    this.#checkState(incarnation, machine, index, 'takes a snapshot of');
  }

  /** The state was replaced by that of a snapshot up to `index`, as the replica says. */
  replaced(incarnation: Incarnation, machine: StateMachine, index: number): void {
    if (this.#installing.get(incarnation) !== index) {
      this.#fail(`node ${incarnation.nodeId} replaces its state by that at ${index}, which its core did not ask for`);
      return;
    }
    this.#installing.delete(incarnation);
    if (incarnation.alive) this.#checkState(incarnation, machine, index, 'has installed');
  }

  /** `agrees`: before the step, the log held the entry that a snapshot which was received ends with. */
  stepped(incarnation: Incarnation, core: Core, input: Input, effects: Effects, agrees: boolean): void {
    const { log, snapshot } = core;
    if (input.kind === 'compact') this.compactions++;
    if (log.snapshotIndex > 0 && (snapshot === null || snapshot.index < log.snapshotIndex)) {
      this.#fail(`node ${core.id} forgot its log up to ${log.snapshotIndex}; its snapshot is ${snapshot?.index ?? 0}`);
    }
    if (input.kind === 'tick') this.#checkOffers(core, effects);
    if (effects.install === null) return;
    const { index, term, resetLog } = effects.install;
    if (agrees && resetLog) {
      this.#fail(`node ${core.id} drops what its log holds behind entry ${index}, where the two agree`);
    }
    if (!resetLog) this.kept++;
    this.installed++;
    this.#installing.set(incarnation, index);
    if (this.#committedTermAt(index) === term) return;
    this.#fail(`node ${core.id} installs a snapshot up to ${index} of term ${term}, which was never committed`);
  }

  /** One offer may be lost, or come at a bad time: it is said again, and not only when all patience is over. */
  #checkOffers({ id, leading, options }: Core, { sendNow }: Effects): void {
    for (const [peer, progress] of leading?.progress ?? []) {
      const isOffered = sendNow.some(({ kind, to }) => kind === 'snapshotOffer' && to === peer);
      const ticks = isOffered || progress.state !== 'snapshot' ? 0 : (this.#sinceOffer.get(progress) ?? 0) + 1;
      this.#sinceOffer.set(progress, ticks);
      if (ticks <= options.heartbeatIntervalTicks) continue;
      this.#fail(`leader ${id} has not offered node ${peer} the snapshot that it needs for ${ticks} ticks`);
    }
  }

  #checkState(incarnation: Incarnation, machine: StateMachine, index: number, how: string): void {
    const hash = machine.hash();
    const known = this.#hashes.get(index);
    this.#hashes.set(index, known ?? hash);
    if (known === undefined || known === hash) return;
    this.#fail(`node ${incarnation.nodeId} ${how} state ${hash} at entry ${index}, another had ${known}`);
  }

  #fail(message: string): void {
    this.#world.fail('snapshots are the state', message);
  }
}
