import { RaftLog } from '../../src/raft/log.ts';
import { type Effects, type Entry, type HardState, type Message, NOBODY } from '../../src/raft/types.ts';

/** What one step of a core asked of its disk, and the messages that must wait for it. */
export interface DiskWrite {
  readonly hardState: HardState | null;
  /** The first of them cuts the log where it is at or below its end. */
  readonly entries: readonly Entry[];
  readonly messages: Message[];
}

/**
 * One node's disk as the core must expect it to be: writes become durable in order, at any later time, and the core
 * hears of it later still. A crash loses what is not durable; of the write it interrupts, any part of the records from
 * the first on may have arrived.
 *
 *   submit ─▶ pending ─ becomes durable ─▶ completed ─ the core is told, the messages go ─▶
 */
export class SimulatedDisk {
  hardState: HardState = { term: 0, vote: NOBODY, commitIndex: 0 };
  /** Durable entries; the first has index 1. */
  readonly entries: Entry[] = [];
  pending: DiskWrite[] = [];
  completed: DiskWrite[] = [];

  /** Takes a step's writes. Returns the messages that need not wait for anything. */
  submit(effects: Effects): readonly Message[] {
    const { hardState, append, sendAfterPersist } = effects;
    if (hardState !== null || append.length > 0) {
      this.pending.push({ hardState, entries: append, messages: [...sendAfterPersist] });
      return [];
    }
    const last = this.pending.at(-1) ?? this.completed.at(-1);
    if (last === undefined) return sendAfterPersist;
    last.messages.push(...sendAfterPersist);
    return [];
  }

  /** The oldest write reaches the disk. */
  persistNext(): boolean {
    const write = this.pending.shift();
    if (write === undefined) return false;
    this.put(write, Number.POSITIVE_INFINITY);
    this.completed.push(write);
    return true;
  }

  /** Loses everything but what is durable, and `recordsKept` records of the write that was on its way. */
  crash(recordsKept: number): void {
    const interrupted = this.pending[0];
    if (interrupted !== undefined) this.put(interrupted, recordsKept);
    this.pending = [];
    this.completed = [];
  }

  /** The log that a restart recovers. */
  recover(cacheBytesMax: number): RaftLog {
    const log = new RaftLog({ snapshotIndex: 0, snapshotTerm: 0, cacheBytesMax });
    for (const entry of this.entries) log.append(entry);
    log.persistedIndex = this.entries.length;
    log.evict();
    return log;
  }

  termAt(index: number): number {
    return index === 0 ? 0 : (this.entries[index - 1]?.term ?? -1);
  }

  /** Entries from `fromIndex` on: at least one, then as many as fit, as a log file gives them. */
  read(fromIndex: number, toIndex: number, bytesMax: number): Entry[] {
    const entries: Entry[] = [];
    let bytes = 0;
    for (const entry of this.entries.slice(fromIndex - 1, toIndex)) {
      bytes += entry.bytes.length;
      if (entries.length > 0 && bytes > bytesMax) break;
      entries.push(entry);
    }
    return entries;
  }

  private put(write: DiskWrite, recordsMax: number): void {
    let room = recordsMax;
    if (write.hardState !== null && room-- > 0) this.hardState = write.hardState;
    for (const entry of write.entries) {
      if (room-- <= 0) return;
      this.entries.length = entry.index - 1;
      this.entries.push(entry);
    }
  }
}
