import type { WriteCommand } from '../../src/kv/batch.ts';
import type { ChangeObserver } from '../../src/kv/changes.ts';
import type { Item } from '../../src/kv/types.ts';
import type { MemberChange } from '../../src/raft/state/types.ts';
import type {
  Backup,
  MembersView,
  ReadCompletion,
  Replica,
  ReplicaStatus,
  WriteCompletion,
} from '../../src/replica/types.ts';
import type { Incarnation } from './incarnation.ts';
import type { World } from './world.ts';

/** A replica as the client port sees it, with a check: a read sees every entry that was committed when it came. */
export class CheckedReads implements Replica {
  readonly #replica: Replica;
  readonly #incarnation: Incarnation;
  readonly #world: World;
  readonly #lastCommitted: () => number;

  /** `lastCommitted` is the last index that any node has committed. */
  constructor(replica: Replica, incarnation: Incarnation, world: World, lastCommitted: () => number) {
    this.#replica = replica;
    this.#incarnation = incarnation;
    this.#world = world;
    this.#lastCommitted = lastCommitted;
  }

  read(completion: ReadCompletion): void {
    const committed = this.#lastCommitted();
    const readable = () => {
      const { appliedIndex } = this.#replica.status();
      if (this.#incarnation.alive && appliedIndex < committed) {
        const { nodeId } = this.#incarnation;
        const message = `node ${nodeId} serves at ${appliedIndex} a read that came after ${committed} was committed`;
        this.#world.fail('reads are not stale', message);
      }
      completion.readable();
    };
    this.#replica.read({ readable, readFailed: (failure) => completion.readFailed(failure) });
  }

  propose(command: WriteCommand, completion: WriteCompletion): void {
    this.#replica.propose(command, completion);
  }

  get(key: string): Item | undefined {
    return this.#replica.get(key);
  }

  accepting(): boolean {
    return this.#replica.accepting();
  }

  onceAccepting(callback: () => void): void {
    this.#replica.onceAccepting(callback);
  }

  status(): ReplicaStatus {
    return this.#replica.status();
  }

  entries(): IterableIterator<[string, Item]> {
    return this.#replica.entries();
  }

  observe(observer: ChangeObserver | null): void {
    this.#replica.observe(observer);
  }

  changeMembers(change: MemberChange): Promise<void> {
    return this.#replica.changeMembers(change);
  }

  members(): MembersView {
    return this.#replica.members();
  }

  backup(): Promise<Backup> {
    return this.#replica.backup();
  }
}
