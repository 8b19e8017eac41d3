/** The constant replies, encoded once. */

const line = (text: string) => Buffer.from(`${text}\r\n`, 'latin1');

/**
 * The memcached version whose protocol is implemented. It must consist of three plain numbers, because a suffix makes a
 * popular client throw.
 */
export const PROTOCOL_VERSION = '1.6.45';

export const STORED = line('STORED');
export const NOT_STORED = line('NOT_STORED');
export const EXISTS = line('EXISTS');
export const NOT_FOUND = line('NOT_FOUND');
export const DELETED = line('DELETED');
export const TOUCHED = line('TOUCHED');
export const OK = line('OK');
export const END = line('END');
export const RESET = line('RESET');
export const VERSION = line(`VERSION ${PROTOCOL_VERSION}`);
/** The reply to `mn`, the no-op that clients send after a series of quiet meta commands. */
export const META_NOOP = line('MN');
export const NOTHING = Buffer.alloc(0);

export const ERROR = line('ERROR');
export const BAD_LINE = line('CLIENT_ERROR bad command line format');
export const BAD_DELETE = line('CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]');
export const BAD_DATA_CHUNK = line('CLIENT_ERROR bad data chunk');
export const BAD_DELTA = line('CLIENT_ERROR invalid numeric delta argument');
export const BAD_EXPTIME = line('CLIENT_ERROR invalid exptime argument');
export const NON_NUMERIC = line('CLIENT_ERROR cannot increment or decrement non-numeric value');
export const BAD_STATS_DETAIL = line('CLIENT_ERROR usage: stats detail on|off|dump');
export const UNAUTHENTICATED = line('CLIENT_ERROR unauthenticated');
export const AUTHENTICATION_FAILURE = line('CLIENT_ERROR authentication failure');
export const BAD_TOKEN_FORMAT = line('CLIENT_ERROR bad authentication token format');
export const BAD_TERMINATION = line('CLIENT_ERROR bad command line termination');
export const DUPLICATE_FLAG = line('CLIENT_ERROR duplicate flag');
export const INVALID_FLAG = line('CLIENT_ERROR invalid flag');
export const BAD_TOKEN = line('CLIENT_ERROR bad token in command line format');
export const OPAQUE_TOO_LONG = line('CLIENT_ERROR opaque token too long');
export const TOO_MANY_FLAGS = line('CLIENT_ERROR options flags are too long');
export const BAD_KEY_ENCODING = line('CLIENT_ERROR error decoding key');
export const BAD_SET_MODE = line('CLIENT_ERROR invalid mode for ms M token');
export const BAD_ARITHMETIC_MODE = line('CLIENT_ERROR invalid mode for ma M token');
export const BAD_INITIAL = line('CLIENT_ERROR invalid numeric initial value');
export const BAD_META_DELTA = line('CLIENT_ERROR invalid numeric delta value');
export const BAD_CLASS = line('BADCLASS invalid class id');
export const SHUTDOWN_REFUSED = line('ERROR: shutdown not enabled');
export const OBJECT_TOO_LARGE = line('SERVER_ERROR object too large for cache');
export const OUT_OF_MEMORY = line('SERVER_ERROR out of memory storing object');
export const OUT_OF_INPUT_MEMORY = line('SERVER_ERROR out of memory reading request');
export const TOO_MANY_WATCHERS = line('WATCHER_TOO_MANY log watcher limit reached');
export const TOO_MANY_CONNECTIONS = line('ERROR Too many open connections');
export const READ_TIMED_OUT = line('SERVER_ERROR no quorum');
export const WRITE_TIMED_OUT = line('SERVER_ERROR no quorum: outcome unknown');
export const READ_STOPPED = line('SERVER_ERROR node is stopping');
export const WRITE_STOPPED = line('SERVER_ERROR node is stopping: outcome unknown');
/** The write took effect, but its result is unknown, because the node installed a snapshot that contains it. */
export const WRITE_OVERTAKEN = line('SERVER_ERROR node was behind: outcome unknown');
export const WRITE_REFUSED_DISK_FULL = line('SERVER_ERROR disk full: nothing was changed');
