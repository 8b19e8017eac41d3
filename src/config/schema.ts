import { isIP } from 'node:net';
import { z } from 'zod';
import { LOG_LEVELS } from '../base/logger.ts';

/**
 * What `cluster.json` may say: every field with its unit, its bounds, the reason for them, and its default. The
 * environment's names and the messages about mistakes derive from this schema.
 */

const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;

/** Every write goes from the leader to every node, and a majority must sync it: more nodes only make it slower. */
const NODES_MAX = 15;
/** Fits the peer handshake and the batch header with room to spare, and stays readable in a log. */
const NODE_ID_MAX = 65_535;
const PORT_MAX = 65_535;
/** The longest DNS name. */
const HOST_BYTES_MAX = 253;

interface Bounds {
  readonly min: number;
  readonly max: number;
  readonly stepBytes?: number;
  /** Why the bounds are where they are, for the reader of the error. */
  readonly because?: string;
}

function whole(what: string, { min, max, stepBytes = 1, because }: Bounds) {
  const error = `must be ${what} from ${min} to ${max}${because ? ` (${because})` : ''}`;
  return z.int({ error }).min(min, { error }).max(max, { error }).multipleOf(stepBytes, { error });
}

function text(rule: string, accepts: (value: string) => boolean) {
  const error = `must be ${rule}`;
  return z.string({ error }).refine(accepts, { error });
}

const port = () => whole('a port number', { min: 1, max: PORT_MAX });

const HOST_NAME = /^[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?)*$/;
/** A number with dots that is no address is a typing error, not a name. */
const NUMBERS_ONLY = /^[0-9.]+$/;

function isHost(value: string): boolean {
  if (isIP(value) !== 0) return true;
  return value.length <= HOST_BYTES_MAX && HOST_NAME.test(value) && !NUMBERS_ONLY.test(value);
}

export const nodeSchema = z.strictObject(
  {
    id: whole('a whole number', { min: 1, max: NODE_ID_MAX }),
    host: text('a host name or an IP address', isHost),
    clientPort: port(),
    peerPort: port(),
    adminPort: port(),
  },
  { error: 'must be an object with id, host, clientPort, peerPort and adminPort' },
);

const limitsSchema = z.strictObject(
  {
    /** The largest value of one item, as memcached's -I. */
    itemBytesMax: whole('a whole number of bytes', {
      min: KIB,
      max: 8 * MIB,
      because: 'an item is one log entry, which must not delay heartbeats for long',
    }).default(MIB),
    /** Keys, values and overhead of all items. At the limit writes are refused: nothing is evicted. */
    storeBytesMax: whole('a whole number of bytes', {
      min: MIB,
      max: 64 * GIB,
      because: 'the store is held in memory',
    }).default(GIB),
    /** Open client connections. Each costs a file descriptor and some 10 KiB. */
    connectionsMax: whole('a whole number of connections', {
      min: 1,
      max: 1_000_000,
      because: 'each uses a file descriptor',
    }).default(16_384),
    /** Writes accepted from clients and not yet applied. At the limit the node stops reading its sockets. */
    pendingWriteBytesMax: whole('a whole number of bytes', {
      min: MIB,
      max: GIB,
      because: 'it limits memory, and must fit at least one batch',
    }).default(64 * MIB),
    /** A client connection that sends nothing for so long is closed (memcached's idle_timeout); 0 for never. */
    connectionIdleMsMax: whole('a whole number of milliseconds', {
      min: 0,
      max: 7 * 24 * 3600 * 1000,
      because: '0 disables it; the largest value is about a week',
    }).default(0),
    /** Reply bytes that one client has not taken. At the limit nothing more is executed for it. */
    unsentBytesMax: whole('a whole number of bytes', {
      min: 4 * KIB,
      max: GIB,
      because: 'less would block at every reply, and each client may use this much memory',
    }).default(256 * KIB),
    /** The longest line of a `get` of many keys. Every other line ends within 2048 bytes, as memcached's. */
    multiGetLineBytesMax: whole('a whole number of bytes', {
      min: 4 * KIB,
      max: 64 * MIB,
      because: 'a line is kept in memory until it is complete',
    }).default(MIB),
    /** Connections of one node that `watch mutations`, as memcached's limit. */
    watchersMax: whole('a whole number of connections', {
      min: 0,
      max: 1_000,
      because: 'each change costs work for every watcher',
    }).default(20),
    /** Lines that wait for one watcher. Beyond it lines are lost, and it is told how many. */
    watchedBytesMax: whole('a whole number of bytes', {
      min: 4 * KIB,
      max: GIB,
      because: 'less would not fit a few lines, and each watcher may use this much memory',
    }).default(MIB),
  },
  { error: 'must be an object' },
);

const path = (of: string) => text(`the path of a ${of}`, (value) => value !== '' && !value.includes('\0'));

/** `mutual`: both ends show a certificate. `encrypted`: only this one. `plain`: no TLS. */
const clientSecurity = () =>
  z.enum(['mutual', 'encrypted', 'plain'], { error: 'must be one of mutual, encrypted, plain' }).default('mutual');

const tlsSchema = z.strictObject(
  {
    /** The authority, or several in one file, that the other end's certificate must come from. */
    ca: path('file'),
    /** `{id}` in these two stands for the id of the node, so that all nodes can share one configuration. */
    cert: path('file'),
    key: path('file'),
    /** The certificate that `raftkv` commands show to admin ports. Without it, they use the one of a node whose files they can read. */
    clientCert: path('file').optional(),
    clientKey: path('file').optional(),
    clients: clientSecurity(),
    admin: clientSecurity(),
    /** Between nodes there is no half of it: each has to know whom it talks to. */
    peers: z.enum(['mutual', 'plain'], { error: 'must be one of mutual, plain' }).default('mutual'),
  },
  { error: 'must be an object with ca, cert and key' },
);

export const configSchema = z.strictObject(
  {
    /** Keeps the nodes of two clusters from talking to each other, or opening each other's data. */
    cluster: text('1 to 64 letters, digits, dots, dashes and underscores, beginning with a letter or a digit', (name) =>
      /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(name),
    ),
    dataDir: path('folder').default('./data'),
    /** Lines of `user:password`. Where given, a client has to log in before anything else. Read again on SIGHUP. */
    authFile: path('file').optional(),
    /** If present, all ports use TLS. The files are read again on SIGHUP. */
    tls: tlsSchema.optional(),
    nodes: z
      .array(nodeSchema, { error: 'must be a list of nodes' })
      .min(1, { error: 'must name at least one node' })
      .max(NODES_MAX, { error: `must name at most ${NODES_MAX} nodes: a majority of them must sync every write` }),
    /** The interval of the leader's heartbeats. */
    heartbeatIntervalMs: whole('a whole number of milliseconds', {
      min: 5,
      max: 10_000,
      because: 'timers of a busy process are not more precise',
    }).default(50),
    /** A follower that hears from no leader for so long asks for an election. Each wait is random, between this and twice this. */
    electionTimeoutMs: whole('a whole number of milliseconds', {
      min: 30,
      max: 60_000,
      because: 'a pause of the garbage collector or of a disk must not cause an election',
    }).default(300),
    /** Without a quorum, a request is held for so long before it is answered with an error. */
    requestTimeoutMs: whole('a whole number of milliseconds', {
      min: 100,
      max: 600_000,
      because: 'requests must survive an election',
    }).default(10_000),
    /** Size of one file of the write-ahead log. */
    walSegmentBytes: whole('a whole number of bytes, in steps of 4096,', {
      min: 32 * MIB,
      max: GIB,
      stepBytes: 4 * KIB,
      because: 'a segment holds at least one of the largest entries, in whole sectors',
    }).default(64 * MIB),
    /** Log since the last snapshot that makes a node take one, and then give old log back. */
    snapshotLogBytes: whole('a whole number of bytes', {
      min: MIB,
      max: 64 * GIB,
      because: 'less would write snapshots all the time; more makes a restart read more log',
    }).default(64 * MIB),
    logLevel: z.enum(LOG_LEVELS, { error: `must be one of ${LOG_LEVELS.join(', ')}` }).default('info'),
    limits: limitsSchema.prefault({}),
  },
  { error: 'must be an object with cluster and nodes' },
);

type Frozen<T> = T extends object ? { readonly [K in keyof T]: Frozen<T[K]> } : T;

/** A validated configuration, with every default filled in. `dataDir` is absolute. */
export type Config = Frozen<z.output<typeof configSchema>>;
export type TlsConfig = NonNullable<Config['tls']>;
export type NodeConfig = Config['nodes'][number];
