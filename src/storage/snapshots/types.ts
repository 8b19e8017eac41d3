/** The head of a snapshot file. Storage doesn't know what the chunks after it contain. */
export interface SnapshotHead {
  /** The index and the term of the last entry that the snapshot includes. */
  readonly index: number;
  readonly term: number;
  /** The encoded configuration as of `index`. */
  readonly configuration: Buffer;
}

export interface SnapshotInfo extends SnapshotHead {
  /** The length of the whole file. */
  readonly byteLength: number;
  readonly path: string;
}

/**
 * The snapshot files of a node. Errors of the disk are passed on unchanged, and are final, except ENOSPC: the file that
 * was being written or received was then removed, and the caller may begin again when there is space.
 */
export interface Snapshots {
  /**
   * The newest snapshot; null if there is none. It is durable. Its header and trailer have been verified, but its
   * chunks are verified only when it is loaded.
   */
  readonly newest: SnapshotInfo | null;
  /**
   * Begins a snapshot file under a temporary name. Only one can be written at a time; another may be received
   * meanwhile.
   */
  write(head: SnapshotHead): Promise<SnapshotWriter>;
  /**
   * Reads the newest snapshot. Each chunk is verified before it is passed to `onChunk`, whose promise is awaited. If
   * the snapshot is damaged, or `onChunk` throws SNAPSHOT_DAMAGED, the file is moved aside and `newest` is the next
   * older one or null; the caller must then load again from the beginning. `load(() => {})` only verifies the snapshot.
   * @throws RaftkvError SNAPSHOT_DAMAGED; errors of `onChunk`
   */
  load(onChunk: (chunk: Buffer) => void | Promise<void>): Promise<void>;
  /**
   * Reads unverified bytes of a snapshot file, for a transfer. Returns null if the snapshot is neither the newest one
   * nor held. Returns at most SNAPSHOT_PIECE_BYTES_MAX bytes, and fewer than `length` at the end of the file.
   */
  read(index: number, term: number, offset: number, length: number): Promise<SnapshotPiece | null>;
  /**
   * Keeps a snapshot file even if there is a newer one. Returns false if there is no such file. Each call that returned
   * true needs one `release`.
   */
  hold(index: number, term: number): boolean;
  release(index: number, term: number): void;
  /** Continues to receive this snapshot, or begins to receive it. The received part of another snapshot is dropped. */
  receive(index: number, term: number): Promise<SnapshotReceiver>;
  /** Removes unfinished files. */
  close(): Promise<void>;
}

export interface SnapshotPiece {
  readonly bytes: Buffer;
  /** The length of the whole file. */
  readonly byteLength: number;
}

/** Only one call may run at a time, except `abandon`: it waits for the running call, and later calls are refused. */
export interface SnapshotWriter {
  /** Writes a chunk. Resolves when the next one may be written. */
  write(chunk: Buffer): Promise<void>;
  /**
   * Makes the snapshot durable under its name, so that it is the newest, and removes older ones that are not held. If a
   * snapshot at least as new was received in the meantime, drops this one and returns that one.
   */
  finish(): Promise<SnapshotInfo>;
  /** Removes the unfinished file. Has no effect after `finish`. */
  abandon(): Promise<void>;
}

/** Only one call may run at a time, except `abandon`. */
export interface SnapshotReceiver {
  /** The number of bytes received so far, which is the position of the next piece. */
  readonly byteLength: number;
  /** Appends a piece. `bytes` must not change until this resolves. */
  append(bytes: Buffer): Promise<void>;
  /**
   * Verifies the whole file and makes it durable under its name, so that it is the newest. If a snapshot at least as
   * new was written in the meantime, drops this one and returns that one.
   * @throws RaftkvError SNAPSHOT_DAMAGED, FORMAT_UNSUPPORTED, DATA_DIR_FOREIGN. The file is then removed.
   */
  finish(): Promise<SnapshotInfo>;
  /** Removes the unfinished file. Has no effect after `finish`. */
  abandon(): Promise<void>;
}
