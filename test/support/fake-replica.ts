import { type Clock, systemClock } from '../../src/base/clock.ts';
import { RaftkvError } from '../../src/base/errors.ts';
import { BatchBuilder, stampBatchTime, type WriteCommand } from '../../src/kv/batch.ts';
import type { ChangeObserver } from '../../src/kv/changes.ts';
import { StateMachine } from '../../src/kv/state-machine.ts';
import { type Item, Op, type ResultCode } from '../../src/kv/types.ts';
import type {
  Backup,
  Failure,
  MembersView,
  ReadCompletion,
  Replica,
  ReplicaStatus,
  WriteCompletion,
} from '../../src/replica/types.ts';

const PROPOSER = 1;
const SESSION = 1;
const ALONE = new RaftkvError('MEMBER_CHANGE_REFUSED', 'this replica has no cluster');

export interface FakeReplicaOptions {
  readonly clock?: Clock;
  readonly itemBytesMax?: number;
  readonly storeBytesMax?: number;
}

/**
 * A replica without a cluster: the real state machine, alone in one process. Results come at the end of the turn, or
 * while `hold` is in force when `deliverWrites`, `deliverReads` or `fail` say so.
 */
export class FakeReplica implements Replica {
  /** Every proposal so far, as `set key`. Kept only where a test asks for it. */
  proposals: string[] | null = null;
  reads = 0;
  hold = false;
  readonly machine = new StateMachine();
  readonly #options: Required<FakeReplicaOptions>;
  readonly #builder = new BatchBuilder(0);
  #writers: WriteCompletion[] = [];
  #readers: ReadCompletion[] = [];
  #sequence = 0;
  #scheduled = false;
  #accepting = true;
  #waiting: (() => void)[] = [];

  constructor(options: FakeReplicaOptions = {}) {
    this.#options = { clock: systemClock, itemBytesMax: 1024 * 1024, storeBytesMax: 1024 ** 3, ...options };
  }

  get pendingWrites(): number {
    return this.#writers.length;
  }

  get pendingReads(): number {
    return this.#readers.length;
  }

  propose(command: WriteCommand, completion: WriteCompletion): void {
    const { op, source, keyStart, keyEnd } = command;
    this.proposals?.push(`${nameOf(op)} ${source.toString('latin1', keyStart, keyEnd)}`.trimEnd());
    this.#builder.add(command);
    this.#writers.push(completion);
    this.#schedule();
  }

  read(completion: ReadCompletion): void {
    this.reads++;
    this.#readers.push(completion);
    this.#schedule();
  }

  get(key: string): Item | undefined {
    return this.machine.get(key);
  }

  entries(): IterableIterator<[string, Item]> {
    return this.machine.entries();
  }

  observe(observer: ChangeObserver | null): void {
    this.machine.observer = observer;
  }

  accepting(): boolean {
    return this.#accepting;
  }

  onceAccepting(callback: () => void): void {
    this.#waiting.push(callback);
  }

  setAccepting(accepting: boolean): void {
    this.#accepting = accepting;
    if (!accepting) return;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const callback of waiting) callback();
  }

  /** Ends `hold` and delivers what was held. */
  release(): void {
    this.hold = false;
    this.#schedule();
  }

  deliverWrites(): void {
    const completions = this.#writers;
    if (completions.length === 0) return;
    this.#writers = [];
    const payload = this.#builder.seal(
      PROPOSER,
      SESSION,
      ++this.#sequence,
      this.#options.itemBytesMax,
      this.#options.storeBytesMax,
    );
    stampBatchTime(payload, 0, this.#options.clock.wallMs());
    this.machine.apply(payload, 0, {
      result(position: number, code: ResultCode, item: Item | null, text: string) {
        completions[position]?.written(code, item, text);
      },
    });
  }

  deliverReads(): void {
    const completions = this.#readers;
    this.#readers = [];
    for (const completion of completions) completion.readable();
  }

  /** Fails what is held; the writes take no effect. */
  fail(failure: Failure): void {
    const writers = this.#writers;
    const readers = this.#readers;
    this.#writers = [];
    this.#readers = [];
    if (writers.length > 0) this.#builder.seal(PROPOSER, SESSION, 0, 0, 0);
    for (const completion of writers) completion.writeFailed(failure);
    for (const completion of readers) completion.readFailed(failure);
  }

  status(): ReplicaStatus {
    return {
      nodeId: PROPOSER,
      role: 'leader',
      term: 1,
      leader: PROPOSER,
      commitIndex: this.#sequence,
      appliedIndex: this.#sequence,
      lastLogIndex: this.#sequence,
      logBytes: 0,
      items: this.machine.items,
      storeBytes: this.machine.storeBytes,
      totalItems: this.machine.totalItems,
      clusterTimeMs: this.machine.timeMs,
      pendingWrites: this.#writers.length,
      pendingReads: this.#readers.length,
      peersConnected: [],
      clusterId: '0123456789abcdef0123456789abcdef',
      lifecycle: 'normal',
      voters: [PROPOSER],
      learners: [],
      snapshotIndex: 0,
      snapshotBytes: 0,
      snapshotting: false,
      firstLogIndex: 1,
      healthProblem: '',
    };
  }

  changeMembers(): Promise<void> {
    return Promise.reject(ALONE);
  }

  members(): MembersView {
    throw ALONE;
  }

  backup(): Promise<Backup> {
    return Promise.reject(ALONE);
  }

  #schedule(): void {
    if (this.hold || this.#scheduled) return;
    this.#scheduled = true;
    this.#options.clock.endOfTurn(() => {
      this.#scheduled = false;
      if (this.hold) return;
      this.deliverWrites();
      this.deliverReads();
    });
  }
}

function nameOf(op: Op): string {
  return Object.entries(Op).find(([, value]) => value === op)?.[0] ?? '?';
}
