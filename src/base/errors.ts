/** The kind of an error. A code never changes its meaning, so scripts may depend on it. */
export type ErrorCode =
  | 'CONFIG_INVALID'
  | 'CONFIG_NOT_FOUND'
  | 'AUTH_FILE_INVALID'
  | 'TLS_INVALID'
  | 'TLS_REFUSED'
  | 'CERTIFICATES_EXIST'
  | 'DATA_DIR_LOCKED'
  | 'DATA_DIR_LOST'
  | 'DATA_DIR_FOREIGN'
  | 'FORMAT_UNSUPPORTED'
  | 'META_DAMAGED'
  | 'WAL_DAMAGED'
  | 'SNAPSHOT_DAMAGED'
  | 'WAL_WRITE_FAILED'
  | 'WAL_CLOSED'
  | 'DISK_FULL'
  | 'MEMBER_CHANGE_REFUSED'
  | 'NOT_LEADER'
  | 'SESSION_BEHIND'
  | 'QUORUM_LOST'
  | 'BACKUP_INVALID'
  | 'PORT_UNAVAILABLE'
  | 'FRAME_INVALID'
  | 'PEER_REFUSED'
  | 'PEER_UNREACHABLE'
  | 'MESSAGE_INVALID'
  | 'INVARIANT_BROKEN';

/** An error that raftkv raises on purpose. The message says what happened and where. */
export class RaftkvError extends Error {
  readonly code: ErrorCode;
  /** What the operator can do about the error; empty if there is nothing to do. */
  readonly remedy: string;

  constructor(code: ErrorCode, message: string, remedy = '', cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'RaftkvError';
    this.code = code;
    this.remedy = remedy;
  }
}
