import type { StateMachine } from '../kv/state-machine.ts';
import type { Core } from '../raft/state/core.ts';
import type { Effects, Entry, HardState, Input } from '../raft/state/types.ts';
import type { LogBase, Wal } from '../storage/wal/types.ts';

/**
 * A way to watch a replica from outside: the simulator checks its promises through this. The shipped program has no
 * observer; then each call costs one comparison with null.
 *
 * An observer changes nothing and calls nothing of the replica. What it is given belongs to the replica: to be read during
 * the call, and of a `ReplicaView` at any time.
 */
export interface ReplicaObserver {
  /** The replica has been put together from its files. It has done nothing yet, and every call below comes later. */
  opened(view: ReplicaView): void;
  /** The core is about to take `input`. */
  stepping(input: Input): void;
  /** The core has taken `input`. None of the effects has been carried out yet. */
  stepped(input: Input, effects: Effects): void;
  /** One write is given to the log file, which writes in the order of these calls. `reset` is where the log is to begin. */
  writing(reset: LogBase | null, hardState: HardState | null, entries: readonly Entry[]): void;
  /** The state machine has applied the committed batch of commands in `entry`. */
  applied(entry: Entry): void;
  /** A snapshot of the present state, in which entry `index` is the last that was applied, is about to be taken. */
  snapshotBegins(index: number): void;
  /** The state was replaced by that of a snapshot up to entry `index`. */
  installed(index: number): void;
}

/** The parts of a replica that an observer may look at. */
export interface ReplicaView {
  readonly core: Readonly<Core>;
  readonly stateMachine: StateMachine;
  readonly wal: Pick<Wal, 'firstIndex'>;
  /** `unapplied`: batches that were accepted from clients and wait to be applied. */
  readonly proposer: { readonly sessionId: number; readonly unapplied: number };
}
