import { createServer, type Server, type Socket } from 'node:net';
import type { Clock } from '../../base/clock.ts';
import { RaftkvError } from '../../base/errors.ts';
import { createRateLimitedLog, type Logger } from '../../base/logger.ts';
import type { PortTls, TlsIdentity } from '../../base/tls.ts';
import { Output } from '../../memcached/output.ts';
import { RequestParser } from '../../memcached/parser.ts';
import { TOO_MANY_CONNECTIONS } from '../../memcached/replies.ts';
import type { Replica } from '../../replica/types.ts';
import { type Counters, newCounters } from '../counters.ts';
import { SlotPool } from '../requests/slots.ts';
import { openTlsListener, REPEATED_WARNING_MS } from '../tls-listener.ts';
import { Authenticator, type Credentials } from './authenticator.ts';
import { Connection, type ConnectionHost } from './connection.ts';
import { type ClientLimits, DEFAULT_CLIENT_LIMITS } from './limits.ts';
import { type StatsSources, writeStatsReply } from './stats.ts';
import { Watchers } from './watchers.ts';

/**
 * The port that clients use: memcached's text protocol over TCP, on every node.
 *
 *   clients ─▶ sockets ─▶ Connection ─▶ Slot ─▶ Replica
 *                             ▲                   │ a burst of results, for many connections
 *   clients ◀── one write ◀── serve ◀── list of those to be served ◀┘
 *
 * The folder promises: replies in the order of the requests; commands of one connection take effect in that order;
 * every limit of clients/limits.ts is met by pushing back first; a silent connection costs a few kilobytes. It sees the
 * store only through `Replica`.
 */

export interface ClientPortOptions {
  readonly host: string;
  /** 0 for any free one. */
  readonly port: number;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly replica: Replica;
  /** The program's own version, for stats. */
  readonly version: string;
  /** The capacity of the store, for stats. */
  readonly storeBytesMax: number;
  /** The users of the port; null or absent if no login is needed. */
  readonly credentials?: Credentials | null;
  /** Null or absent: the port is plain. */
  readonly tls?: PortTls | null;
  /** Limits that differ from the defaults. */
  readonly limits?: Partial<ClientLimits>;
}

export interface ClientPort {
  readonly port: number;
  readonly connections: number;
  /** For connections from now on; where the port is plain it changes nothing. */
  replaceIdentity(identity: TlsIdentity): void;
  /** Stops accepting, answers what has come (for at most `drainMsMax`), closes. Resolves when all are closed. */
  stop(): Promise<void>;
}

/** Rejects with PORT_UNAVAILABLE. */
export async function openClientPort(options: ClientPortOptions): Promise<ClientPort> {
  const limits: ClientLimits = { ...DEFAULT_CLIENT_LIMITS, ...options.limits };
  const listener = await createListener(options);
  const { server } = listener;
  const clients = new Clients();
  await listen(server, options, limits);
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : options.port;
  const host = createHost({ ...options, port }, limits, clients);
  server.on('error', (err) => options.logger.error({ err }, 'the client port failed to accept a connection'));
  listener.onSocket((socket) => accept(socket, host, clients.connections));
  const endWatch = watchIdle(options.clock, limits.connectionIdleMsMax, clients.connections, host.counters);
  return {
    port,
    get connections() {
      return clients.connections.size;
    },
    replaceIdentity: listener.replaceIdentity,
    stop() {
      endWatch();
      listener.endHandshakes();
      return stop(server, clients, host);
    },
  };
}

/** The state that the connections of a port share. Separate from listening, so that tests can bring their own sockets. */
interface Listener {
  readonly server: Server;
  onSocket(accept: (socket: Socket) => void): void;
  replaceIdentity(identity: TlsIdentity): void;
  endHandshakes(): void;
}

async function createListener({ tls, clock, logger }: ClientPortOptions): Promise<Listener> {
  if (tls) {
    const rateLimitedLog = createRateLimitedLog(clock, logger, REPEATED_WARNING_MS);
    return openTlsListener(tls, { clock, rateLimitedLog, portName: 'the client port' });
  }
  const server = createServer({ allowHalfOpen: true });
  return { server, onSocket: (accept) => server.on('connection', accept), replaceIdentity() {}, endHandshakes() {} };
}

export function createHost(options: ClientPortOptions, limits: ClientLimits, clients: Clients): ConnectionHost {
  const { clock, replica } = options;
  const counters = newCounters();
  const watchers = new Watchers(replica, limits, counters);
  const credentials = options.credentials ?? null;
  const sources: StatsSources = {
    ...options,
    authenticates: credentials !== null,
    startedAtMs: clock.monotonicMs(),
    limits,
    counters,
    watchers,
    connections: clients.connections,
  };
  const serving = servingOrder();
  let waitingForReplica: Connection[] = [];
  const replicaAccepts = () => {
    const waiting = waitingForReplica;
    waitingForReplica = [];
    for (const connection of waiting) {
      connection.awaitsReplica = false;
      serving.soon(connection);
    }
  };
  return {
    clock,
    replica,
    limits,
    counters,
    parser: new RequestParser(limits),
    output: new Output(),
    watchers,
    slots: new SlotPool(),
    authenticator: credentials === null ? null : new Authenticator(credentials, counters),
    inputMemory: { bytes: 0 },
    serveSoon: serving.soon,
    serveNextTurn: (connection) => clock.endOfTurn(() => serving.soon(connection)),
    serveOnceAccepting(connection) {
      if (connection.awaitsReplica) return;
      connection.awaitsReplica = true;
      waitingForReplica.push(connection);
      if (waitingForReplica.length === 1) replica.onceAccepting(replicaAccepts);
    },
    writeStats: (output, subject) => writeStatsReply(output, subject, sources),
    closed: (connection) => clients.closed(connection),
  };
}

/** The open connections. */
export class Clients {
  readonly connections = new Set<Connection>();
  #goneCallbacks: (() => void)[] = [];

  closed(connection: Connection): void {
    this.connections.delete(connection);
    this.#callBackWhenGone();
  }

  onceGone(callback: () => void): void {
    this.#goneCallbacks.push(callback);
    this.#callBackWhenGone();
  }

  #callBackWhenGone(): void {
    if (this.connections.size > 0) return;
    for (const callback of this.#goneCallbacks.splice(0)) callback();
  }
}

/**
 * Serves each connection once per burst of results. A microtask runs when the call that brought the burst has come
 * to its end, yet before the loop turns to the next event: the replies wait for nothing.
 */
function servingOrder() {
  let listed: Connection[] = [];
  let spare: Connection[] = [];
  const serveAll = () => {
    while (listed.length > 0) {
      const current = listed;
      listed = spare;
      for (const connection of current) {
        connection.listed = false;
        connection.serve();
      }
      current.length = 0;
      spare = current;
    }
  };
  return {
    soon(connection: Connection) {
      if (connection.listed) return;
      connection.listed = true;
      listed.push(connection);
      if (listed.length === 1) queueMicrotask(serveAll);
    },
  };
}

function accept(socket: Socket, host: ConnectionHost, connections: Set<Connection>): void {
  host.counters.total_connections++;
  if (connections.size < host.limits.connectionsMax) {
    connections.add(new Connection(socket, host));
    return;
  }
  host.counters.rejected_connections++;
  socket.on('error', () => {});
  socket.end(TOO_MANY_CONNECTIONS, () => socket.destroy());
}

function listen(server: Server, options: ClientPortOptions, limits: ClientLimits): Promise<void> {
  const { host, port } = options;
  return new Promise((resolve, reject) => {
    const failed = (cause: Error) =>
      reject(
        new RaftkvError(
          'PORT_UNAVAILABLE',
          `cannot listen on ${host}:${port} for the client port: ${cause.message}`,
          'Free the port, or give this node another host or clientPort in cluster.json.',
          cause,
        ),
      );
    server.once('error', failed);
    server.listen({ host, port, backlog: limits.backlogMax }, () => {
      server.off('error', failed);
      resolve();
    });
  });
}

function stop(server: Server, clients: Clients, host: ConnectionHost): Promise<void> {
  const cancelDrain = host.clock.after(host.limits.drainMsMax, () => {
    for (const connection of clients.connections) connection.destroy();
  });
  for (const connection of clients.connections) connection.finish();
  const closed = new Promise<void>((resolve) => {
    server.close(() => resolve());
  });
  const gone = new Promise<void>((resolve) => clients.onceGone(resolve));
  return Promise.all([closed, gone]).then(cancelDrain);
}

/** A silence is measured in so many steps: it is ended between its limit and one step more. */
const STEPS_PER_SILENCE = 4;

/**
 * Closes connections that neither say anything, nor read, nor wait for an answer, once that has lasted `idleMsMax`. One
 * timer for all: a request costs no look at the clock. Counting steps also keeps a process that was itself paused from
 * blaming its clients. Returns what ends the watch.
 */
function watchIdle(
  clock: Clock,
  idleMsMax: number,
  connections: ReadonlySet<Connection>,
  counters: Counters,
): () => void {
  if (idleMsMax === 0) return () => {};
  const stepMs = idleMsMax / STEPS_PER_SILENCE;
  const step = () => {
    for (const connection of connections) {
      if (connection.countSilence() < STEPS_PER_SILENCE) continue;
      counters.idle_kicks++;
      connection.destroy();
    }
    cancel = clock.after(stepMs, step);
  };
  let cancel = clock.after(stepMs, step);
  return () => cancel();
}
