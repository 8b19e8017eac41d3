import type { Effects, Entry, HardState, Input } from '../../src/raft/state/types.ts';
import type { ReplicaObserver, ReplicaView } from '../../src/replica/observer.ts';
import type { LogBase } from '../../src/storage/wal/types.ts';
import type { ClusterChecks, StateBefore } from './checks.ts';
import type { SimDisk } from './disk.ts';
import type { Incarnation } from './incarnation.ts';

/** The observer of the replica of one incarnation: tells the checks of all nodes what happens in it. */
export class ObservedReplica implements ReplicaObserver {
  readonly #incarnation: Incarnation;
  readonly #disk: SimDisk;
  readonly #checks: ClusterChecks;
  readonly #onOpened: (view: ReplicaView) => void;
  #view: ReplicaView | null = null;
  /** Null if the process is dead: what it does is of no consequence any more. */
  #before: StateBefore | null = null;

  constructor(incarnation: Incarnation, disk: SimDisk, checks: ClusterChecks, onOpened: (view: ReplicaView) => void) {
    this.#incarnation = incarnation;
    this.#disk = disk;
    this.#checks = checks;
    this.#onOpened = onOpened;
  }

  get view(): ReplicaView {
    if (this.#view === null) throw new Error(`the replica of node ${this.#incarnation.nodeId} is not open`);
    return this.#view;
  }

  opened(view: ReplicaView): void {
    this.#view = view;
    this.#onOpened(view);
    this.#checks.opened(this.#incarnation, view);
  }

  stepping(input: Input): void {
    const { core } = this.view;
    this.#checks.durability.wrote(core, input);
    this.#before = this.#incarnation.alive ? this.#checks.stepping(core, input) : null;
  }

  stepped(input: Input, effects: Effects): void {
    if (this.#before === null) return;
    this.#checks.stepped(this.#incarnation, this.#disk, this.view.core, input, effects, this.#before);
  }

  writing(reset: LogBase | null, hardState: HardState | null, entries: readonly Entry[]): void {
    this.#checks.durability.writing(this.view.core, reset, hardState, entries);
  }

  applied(entry: Entry): void {
    if (this.#incarnation.alive) this.#checks.applied(this.#incarnation, this.view.stateMachine, entry);
  }

  snapshotBegins(index: number): void {
    this.#checks.snapshots.begins(this.#incarnation, this.view.stateMachine, index);
  }

  installed(index: number): void {
    this.#checks.snapshots.replaced(this.#incarnation, this.view.stateMachine, index);
  }
}
