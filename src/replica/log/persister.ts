import { RaftkvError } from '../../base/errors.ts';
import { readUint64, writeUint64 } from '../../base/uint64.ts';
import type { Effects, Entry, HardState, Message } from '../../raft/state/types.ts';
import type { LogBase, Wal } from '../../storage/wal/types.ts';
import type { ReplicaObserver } from '../observer.ts';

/**
 * Between the core's effects and the log file: writes what must be durable, and releases the messages that promise
 * it once it is. The log completes writes in order, so a promise never overtakes what it rests on.
 */
export interface Persisted {
  /** The term and index of the last entry of the write; both 0 if it had no entry. */
  readonly term: number;
  readonly index: number;
  readonly hardState: HardState | null;
  readonly messages: readonly Message[];
}

/** Every so many writes the log also records how far it is committed, so that a restart need not ask the others. */
const COMMIT_HINT_INTERVAL_WRITES = 64;
const HARD_STATE_BYTES = 24;

export class Persister {
  readonly #wal: Wal;
  readonly #observer: ReplicaObserver | null;
  readonly #onPersisted: (persisted: Persisted) => void;
  /** Written or waiting to be, oldest first. */
  readonly #pending: Persisted[] = [];
  #writesSinceHint = 0;

  constructor(wal: Wal, onPersisted: (persisted: Persisted) => void, observer: ReplicaObserver | null = null) {
    this.#wal = wal;
    this.#observer = observer;
    this.#onPersisted = onPersisted;
  }

  /** Takes over `hardState`, `append`, `install` and `sendAfterPersist` of one step, `latest` as of it. */
  persist(effects: Effects, latest: HardState): void {
    const { append } = effects;
    if (effects.install?.resetLog === true) {
      this.resetLog(effects.install, latest, effects.sendAfterPersist);
      return;
    }
    if (effects.hardState === null && append.length === 0) {
      this.#promise(effects.sendAfterPersist);
      return;
    }
    this.#writesSinceHint++;
    const hint = this.#writesSinceHint >= COMMIT_HINT_INTERVAL_WRITES;
    const hardState = effects.hardState !== null || hint ? behindEntries(latest, append) : null;
    if (hardState !== null) this.#writesSinceHint = 0;
    this.#write(null, hardState, append, effects.sendAfterPersist);
  }

  /** Resets the log to a snapshot that is durable. */
  resetLog({ index, term }: LogBase, hardState: HardState, messages: readonly Message[]): void {
    this.#writesSinceHint = 0;
    this.#write({ index, term }, hardState, [], messages);
  }

  /** Records a hard state by itself: before a planned stop, so that the next start knows what is committed. */
  record(hardState: HardState): void {
    this.#write(null, hardState, [], []);
  }

  #write(
    reset: LogBase | null,
    hardState: HardState | null,
    append: readonly Entry[],
    messages: readonly Message[],
  ): void {
    const last = append.at(-1);
    this.#pending.push({ term: last?.term ?? 0, index: last?.index ?? 0, hardState, messages });
    this.#observer?.writing(reset, hardState, append);
    this.#wal.append({
      reset,
      hardState: hardState === null ? null : encodeHardState(hardState),
      // If this is not behind the last index of the log file, the file is truncated there first.
      firstIndex: append[0]?.index ?? 0,
      entries: append.map((entry) => entry.bytes),
      done: () => this.#complete(),
    });
  }

  /** Sends messages that wait for earlier writes only: at once if none is pending, else after the last of them. */
  #promise(messages: readonly Message[]): void {
    if (messages.length === 0) return;
    if (this.#pending.length === 0) {
      this.#onPersisted({ term: 0, index: 0, hardState: null, messages });
      return;
    }
    const last = this.#pending.pop() as Persisted;
    this.#pending.push({ ...last, messages: [...last.messages, ...messages] });
  }

  #complete(): void {
    const persisted = this.#pending.shift();
    if (persisted !== undefined) this.#onPersisted(persisted);
  }
}

/**
 * A hard state comes before the entries of its write, where the file may still hold others of their indexes. Who reads
 * it back must take for committed only what came before.
 */
function behindEntries(hardState: HardState, append: readonly Entry[]): HardState {
  const first = append[0];
  if (first === undefined || first.index > hardState.commitIndex) return hardState;
  return { ...hardState, commitIndex: first.index - 1 };
}

/** u64 term, u64 vote, u64 commitIndex, little-endian. */
export function encodeHardState(hardState: HardState): Buffer {
  const bytes = Buffer.allocUnsafe(HARD_STATE_BYTES);
  writeUint64(bytes, hardState.term, 0);
  writeUint64(bytes, hardState.vote, 8);
  writeUint64(bytes, hardState.commitIndex, 16);
  return bytes;
}

/** @throws RaftkvError WAL_DAMAGED where a record that verified is no hard state: another program wrote it. */
export function decodeHardState(bytes: Buffer): HardState {
  if (bytes.length !== HARD_STATE_BYTES) {
    throw new RaftkvError('WAL_DAMAGED', `the log holds a hard state of ${bytes.length} bytes`);
  }
  return { term: readUint64(bytes, 0), vote: readUint64(bytes, 8), commitIndex: readUint64(bytes, 16) };
}
