/**
 * The write-ahead log as the floors above see it. It knows records, not what is inside them.
 */
export interface WalWrite {
  /** The encoded hard state to record before the entries, or null for none. */
  readonly hardState: Buffer | null;
  /** Index of the first of `entries`. Where it is at or below the last index written, the log is cut there first. */
  readonly firstIndex: number;
  /** Together with `hardState` never nothing at all: a write that writes nothing has nothing to wait for. */
  readonly entries: readonly Buffer[];
  /** Called once this write, and every one before it, is durable. In order; never after a failure. */
  readonly done: () => void;
}

export interface Wal {
  /** 0 where the log is empty. */
  readonly firstIndex: number;
  /** Of all that was handed to `append`, durable or not yet. 0 where the log is empty. */
  readonly lastIndex: number;
  /** Bytes of all segments on disk. */
  readonly byteLength: number;
  /** Milliseconds (monotonic) since the oldest write that is not yet durable was handed over; 0 where none waits. */
  oldestPendingMs(): number;
  /**
   * Queues a write. All that arrives while one is on its way to the disk goes out together as the next. The buffers
   * must not change before `done`.
   * @throws RaftkvError WAL_CLOSED, WAL_WRITE_FAILED after a failure, INVARIANT_BROKEN where the write makes no sense.
   */
  append(write: WalWrite): void;
  /**
   * Reads entries back, at least one and then as many as fit into `bytesMax`, from `fromIndex` up to `toIndex`
   * (both included). Only durable entries may be asked for.
   * @throws RaftkvError WAL_DAMAGED where what is on disk is not what was written.
   */
  read(fromIndex: number, toIndex: number, bytesMax: number): Promise<Buffer[]>;
  /** Lets what is queued become durable, then closes the files. */
  close(): Promise<void>;
}
