const KIB = 1024;
const MIB = 1024 * KIB;

/** Every limit of the client port, with its reason. At most of them a connection is read no further: it pushes back. */
export interface ClientLimits {
  /** The largest item (key, value and memcached's overhead): it travels in one log entry. */
  readonly itemBytesMax: number;
  /** Open connections. Each takes a file descriptor and some 10 KiB. */
  readonly connectionsMax: number;
  /** Requests of one connection that wait for their replies: enough to keep a pipeline busy across a slow sync. */
  readonly pendingRequestsMax: number;
  /**
   * Reply bytes that one connection has not taken. Beyond it nothing more is executed for a client that does not read
   * its replies.
   */
  readonly unsentBytesMax: number;
  /** Bytes kept from a connection whose next request has to wait, before its socket is paused. */
  readonly heldInputBytesMax: number;
  /** Bytes of unfinished and waiting requests, of all connections. A request that needs more is refused. */
  readonly inputBytesMax: number;
  /** The longest line of a `get`: some four thousand of the longest keys. */
  readonly multiGetLineBytesMax: number;
  /** Keys looked up or listed for one connection before the others get their turn: some milliseconds. */
  readonly keysPerTurnMax: number;
  /** A connection that sends nothing for so long is closed (memcached's idle_timeout); 0 for never. Pools stay idle for hours. */
  readonly connectionIdleMsMax: number;
  /** A connection that has not logged in after so long is closed. Enough to type a password in telnet. */
  readonly loginMsMax: number;
  /** Requests refused to one connection that has not logged in; then it is closed, so that guessing costs connections. */
  readonly refusalsMax: number;
  /** Connections that watch, as memcached's limit: each change costs work for every one of them. */
  readonly watchersMax: number;
  /** Bytes that wait for one of them; beyond it lines are lost. Some ten thousand: what one turn may well apply. */
  readonly watchedBytesMax: number;
  /** A connection that this node closes waits for the client to close, too, for so long, so that no reply is lost. */
  readonly lingerMsMax: number;
  /** `stop` waits for so long for pending replies. */
  readonly drainMsMax: number;
  /** Connections that the kernel holds until they are accepted, as memcached's -b. */
  readonly backlogMax: number;
}

export const DEFAULT_CLIENT_LIMITS: ClientLimits = {
  itemBytesMax: MIB,
  connectionsMax: 16_384,
  pendingRequestsMax: 1024,
  unsentBytesMax: 256 * KIB,
  heldInputBytesMax: 16 * KIB,
  inputBytesMax: 256 * MIB,
  multiGetLineBytesMax: MIB,
  keysPerTurnMax: 4096,
  connectionIdleMsMax: 0,
  loginMsMax: 60_000,
  refusalsMax: 10,
  watchersMax: 20,
  watchedBytesMax: MIB,
  lingerMsMax: 500,
  drainMsMax: 3000,
  backlogMax: 1024,
};
