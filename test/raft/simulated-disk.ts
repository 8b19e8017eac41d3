import { decodeConfiguration } from '../../src/raft/state/configuration.ts';
import type { IndexedConfiguration } from '../../src/raft/state/configuration-tracker.ts';
import { ENTRY_HEADER_BYTES } from '../../src/raft/state/entry.ts';
import { RaftLog } from '../../src/raft/state/log.ts';
import {
  type Configuration,
  type Effects,
  type Entry,
  type HardState,
  type LifecycleStatus,
  type Message,
  NO_NODE,
  type SnapshotMark,
} from '../../src/raft/state/types.ts';

/** A snapshot file. What it stands for says all that can be asked of it here. */
export interface StoredSnapshot extends SnapshotMark {
  readonly configuration: Configuration;
}

/** What one step of a core asked of its disk, and the messages that must wait for it. */
export interface DiskWrite {
  /** The log was reset to this. */
  readonly start: SnapshotMark | null;
  readonly hardState: HardState | null;
  /** The first of them truncates the log if it is at or below its end. */
  readonly entries: readonly Entry[];
  readonly messages: Message[];
}

/**
 * One node's disk as the core must expect it to be: writes become durable in order, at any later time, and the core
 * hears of it later still. A crash loses what is not durable; of the write it interrupts, any part of the records from
 * the first on may have arrived. Snapshots lie beside the log, and are durable at once when they are stored.
 *
 *   submit ─▶ pending ─ becomes durable ─▶ completed ─ the core is told, the messages go ─▶
 */
export class SimulatedDisk {
  /** What the metadata beside the log remembers. */
  lifecycle: LifecycleStatus = 'normal';
  directoryId = 0;
  /** Disks that this node had before, and lost, as they were then. What they vouched for, they had. */
  readonly ghosts: SimulatedDisk[] = [];
  hardState: HardState = { term: 0, vote: NO_NODE, commitIndex: 0 };
  /** The entry before the first of `entries`. */
  start: SnapshotMark = { index: 0, term: 0 };
  /** Durable entries; the first has index `start.index + 1`. */
  readonly entries: Entry[] = [];
  /** The newest; older ones are gone. */
  snapshot: StoredSnapshot | null = null;
  pending: DiskWrite[] = [];
  completed: DiskWrite[] = [];

  /** Takes a step's writes. Returns the messages that need not wait for anything. */
  submit(effects: Effects): readonly Message[] {
    const { hardState, append, sendAfterPersist, install } = effects;
    const start = install?.resetLog === true ? install : null;
    if (start !== null || hardState !== null || append.length > 0) {
      this.pending.push({ start, hardState, entries: append, messages: [...sendAfterPersist] });
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

  /** Everything is lost, and a new directory begins. */
  wipe(directoryId: number, lifecycle: 'uninitialized' | 'recovering'): void {
    this.ghosts.push(this.copy());
    this.lifecycle = lifecycle;
    this.directoryId = directoryId;
    this.hardState = { term: 0, vote: NO_NODE, commitIndex: 0 };
    this.start = { index: 0, term: 0 };
    this.entries.length = 0;
    this.snapshot = null;
    this.pending = [];
    this.completed = [];
  }

  private copy(): SimulatedDisk {
    return Object.assign(new SimulatedDisk(), this, { entries: [...this.entries], ghosts: [] });
  }

  /** One that was lost takes the place of this one, which is lost now. */
  putBack(ghost: SimulatedDisk): void {
    const ghosts = [...this.ghosts.filter((each) => each !== ghost), this.copy()];
    Object.assign(this, ghost, { entries: [...ghost.entries], ghosts, pending: [], completed: [] });
  }

  /** The disk that speaks for `directoryId`, with its rights: this one, or one that was lost since. */
  ofDirectory(directoryId: number): SimulatedDisk | undefined {
    return [...this.ghosts, this].find((disk) => disk.directoryId === directoryId && disk.lifecycle === 'normal');
  }

  storeSnapshot(snapshot: StoredSnapshot): void {
    if (snapshot.index > (this.snapshot?.index ?? 0)) this.snapshot = snapshot;
  }

  /** Frees the room of the entries up to `index`, which a snapshot stands for. */
  compact(index: number): void {
    if (index <= this.start.index) return;
    // A log that is about to be reset frees all its room by itself.
    if (this.pending.some(({ start }) => start !== null)) return;
    if (index > (this.snapshot?.index ?? 0)) throw new Error(`no snapshot stands for entry ${index}, but it is to go`);
    const start = { index, term: this.termAt(index) };
    if (start.term < 0) throw new Error(`entry ${index} is to be the last to go, but is not on the disk`);
    this.entries.splice(0, index - this.start.index);
    this.start = start;
  }

  /**
   * The log that a restart recovers. Where it does not hold the entry that the newest snapshot ends with, the crash came
   * between storing a snapshot that was received and beginning the log behind it, so it begins there now.
   */
  recover(cacheBytesMax: number): RaftLog {
    const { snapshot } = this;
    if (snapshot !== null && this.termAt(snapshot.index) !== snapshot.term) {
      this.entries.length = 0;
      this.start = { index: snapshot.index, term: snapshot.term };
    }
    const log = new RaftLog({ snapshotIndex: this.start.index, snapshotTerm: this.start.term, cacheBytesMax });
    for (const entry of this.entries) log.append(entry);
    log.persistedIndex = log.lastIndex;
    log.commitIndex = log.appliedIndex = snapshot?.index ?? 0;
    log.evict();
    return log;
  }

  /** Those in the log, after the one that it begins with; `first` is that of a new cluster. */
  configurations(first: Configuration): IndexedConfiguration[] {
    const { snapshot } = this;
    const base = snapshot === null ? { index: 0, configuration: first } : snapshot;
    const later = this.entries.flatMap(({ index, kind, bytes }) => {
      if (kind !== 'configuration' || index <= base.index) return [];
      return [{ index, configuration: decodeConfiguration(bytes, ENTRY_HEADER_BYTES) }];
    });
    return [{ index: base.index, configuration: base.configuration }, ...later];
  }

  /** The last entry that the log, or else the snapshot, holds. */
  get lastIndex(): number {
    return Math.max(this.start.index + this.entries.length, this.snapshot?.index ?? 0);
  }

  entryAt(index: number): Entry | undefined {
    return this.entries[index - this.start.index - 1];
  }

  termAt(index: number): number {
    return index === this.start.index ? this.start.term : (this.entryAt(index)?.term ?? -1);
  }

  /** Whether the committed entry at `index`, of `term`, is in the log or in the snapshot. */
  holds(index: number, term: number): boolean {
    return this.termAt(index) === term || index <= (this.snapshot?.index ?? 0);
  }

  /** Entries from `fromIndex` on: at least one, then as many as fit, as a log file gives them. */
  read(fromIndex: number, toIndex: number, bytesMax: number): Entry[] {
    const entries: Entry[] = [];
    let bytes = 0;
    const { index } = this.start;
    if (fromIndex <= index) return [];
    for (const entry of this.entries.slice(fromIndex - index - 1, Math.max(toIndex - index, 0))) {
      bytes += entry.bytes.length;
      if (entries.length > 0 && bytes > bytesMax) break;
      entries.push(entry);
    }
    return entries;
  }

  private put(write: DiskWrite, recordsMax: number): void {
    let room = recordsMax;
    if (write.start !== null && room-- > 0) {
      this.start = { index: write.start.index, term: write.start.term };
      this.entries.length = 0;
    }
    if (write.hardState !== null && room-- > 0) this.hardState = write.hardState;
    for (const entry of write.entries) {
      if (room-- <= 0) return;
      this.entries.length = entry.index - 1 - this.start.index;
      this.entries.push(entry);
    }
  }
}
