import type { StateMachine } from '../kv/state-machine.ts';
import type { Input } from '../raft/state/types.ts';

type SnapshotReceived = Extract<Input, { readonly kind: 'snapshotReceived' }>;

/** An input of the core. A snapshot from another node brings its state with it, because the core only keeps track of snapshots. */
export type ReplicaInput = Exclude<Input, SnapshotReceived> | (SnapshotReceived & { readonly state: StateMachine });

/**
 * The only way to the core: takes one input after the other, each together with all of its effects (ADR 0013).
 *
 * Effects lead to further inputs: entries are applied, and the core must hear of it; a write finds the disk full. Such
 * an input waits until the effects of the present one are complete. So no effect of a later input overtakes one of an
 * earlier input, and code that carries out effects never finds the core in a later state than the one that asked for them.
 */
export class InputQueue {
  readonly #take: (input: ReplicaInput) => void;
  /** First the input that is being taken, then those that wait. */
  readonly #inputs: ReplicaInput[] = [];

  /** `take` steps the core and carries out all effects of the step. */
  constructor(take: (input: ReplicaInput) => void) {
    this.#take = take;
  }

  /**
   * If no input is being taken, `input` and all that follow from it have been taken on return; otherwise it waits. If
   * `take` throws, nothing is taken any more: effects of that input are missing.
   */
  put(input: ReplicaInput): void {
    // The input that is being taken stays in front, so one that is not the first only joins the queue.
    if (this.#inputs.push(input) > 1) return;
    for (let next: ReplicaInput | undefined = input; next !== undefined; next = this.#inputs[0]) {
      this.#take(next);
      this.#inputs.shift();
    }
  }
}
