/**
 * The write-ahead log as the floors above see it. It knows records, not what is inside them.
 */
export interface WalWrite {
  /** The encoded hard state to record before the entries, or null for none. */
  readonly hardState: Buffer | null;
  /** Index of the first of `entries`. Where it is at or below the last index written, the log is cut there first. */
  readonly firstIndex: number;
  readonly entries: readonly Buffer[];
  /** Called once this write, and every one before it, is durable. In order; never after a failure. */
  readonly done: () => void;
}

export interface Wal {
  /** 0 where the log is empty. */
  readonly firstIndex: number;
  readonly lastIndex: number;
  /** Bytes of all segments on disk. */
  readonly byteLength: number;
  /** Milliseconds (monotonic) since the oldest write that is not yet durable was handed over; 0 where none waits. */
  oldestPendingMs(): number;
  /** Queues a write. All that arrives while one is on its way to the disk goes out together as the next. */
  append(write: WalWrite): void;
  /**
   * Reads entries back, at least one and then as many as fit into `bytesMax`, from `fromIndex` up to `toIndex`
   * (both included). Only durable entries may be asked for.
   */
  read(fromIndex: number, toIndex: number, bytesMax: number): Promise<Buffer[]>;
  /** Lets what is queued become durable, then closes the files. */
  close(): Promise<void>;
}
