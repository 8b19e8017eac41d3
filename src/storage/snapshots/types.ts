/**
 * Snapshot files as the floors above see them. Storage knows chunks, not what is inside them.
 */
export interface SnapshotHead {
  /** The last entry that the snapshot stands for. */
  readonly index: number;
  readonly term: number;
  /** The configuration as of `index`, as the floors above encode it. */
  readonly configuration: Buffer;
}

export interface SnapshotInfo extends SnapshotHead {
  /** The length of the whole file. */
  readonly byteLength: number;
  readonly path: string;
}

/**
 * All failures of the disk are passed on as they are, and are final, but for ENOSPC: the file that was being written or
 * received is then gone, and the caller may begin again when there is room.
 */
export interface Snapshots {
  /** Durable. Its ends were verified when it was written or at the start; its chunks are when it is loaded. Null for none. */
  readonly newest: SnapshotInfo | null;
  /** Begins a file under a temporary name. One at a time, but for one that is being received. */
  write(head: SnapshotHead): Promise<SnapshotWriter>;
  /**
   * Reads the newest back, each chunk verified before it is handed over; a promise that `onChunk` gives is awaited.
   * Where it is damaged (also where `onChunk` says so by SNAPSHOT_DAMAGED) it is moved aside before this throws, and
   * `newest` is the next older one or null: load again, from nothing. So `load(() => {})` finds rot in one that peers
   * cannot use.
   * @throws RaftkvError SNAPSHOT_DAMAGED
   */
  load(onChunk: (chunk: Buffer) => void | Promise<void>): Promise<void>;
  /**
   * Bytes of that file as they are, for a transfer: null where it is not the newest any more and not held. Fewer than
   * `length` at the end of the file, none behind it, and never more than SNAPSHOT_PIECE_BYTES_MAX.
   */
  read(index: number, term: number, offset: number, length: number): Promise<SnapshotPiece | null>;
  /**
   * While held, that file stays, even where a newer one comes. Each call that gave true wants one `release`; false where
   * there is no such file.
   */
  hold(index: number, term: number): boolean;
  release(index: number, term: number): void;
  /** Goes on with what has been received of this very file, or begins. What had been received of another is dropped. */
  receive(index: number, term: number): Promise<SnapshotReceiver>;
  /** Removes the unfinished file. */
  close(): Promise<void>;
}

export interface SnapshotPiece {
  readonly bytes: Buffer;
  /** The length of the whole file. */
  readonly byteLength: number;
}

/** One call at a time, except `abandon`, which may be called at any time: a running call ends, later ones are refused. */
export interface SnapshotWriter {
  /** Resolves when the writer may be given the next. The chunk comes back from `load` as it is. */
  write(chunk: Buffer): Promise<void>;
  /**
   * Makes it durable under its name; it is the newest from then on, and older ones are removed unless they are held. Where
   * one as new or newer was received meanwhile, that one is returned, and this one dropped.
   */
  finish(): Promise<SnapshotInfo>;
  /** Leaves nothing behind. Harmless after `finish`, and after a failure. */
  abandon(): Promise<void>;
}

/** One call at a time, except `abandon`, which may be called at any time. */
export interface SnapshotReceiver {
  /** The number of bytes that have arrived: the position of the next piece. */
  readonly byteLength: number;
  /** `bytes` must stay as they are until this resolves. */
  append(bytes: Buffer): Promise<void>;
  /**
   * Verifies all of it, makes it durable under its name; it is the newest from then on. Where one as new or newer was
   * written meanwhile, that one is returned.
   * @throws RaftkvError SNAPSHOT_DAMAGED, with the file removed: begin again. Also FORMAT_UNSUPPORTED, DATA_DIR_FOREIGN.
   */
  finish(): Promise<SnapshotInfo>;
  /** Leaves nothing behind. Harmless after `finish`, and after a failure. */
  abandon(): Promise<void>;
}
