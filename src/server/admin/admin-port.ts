import { createServer, type IncomingMessage, type RequestListener, type Server, type ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import type { Clock } from '../../base/clock.ts';
import { RaftkvError } from '../../base/errors.ts';
import { createRateLimitedLog, type Logger } from '../../base/logger.ts';
import { contextOptions, guardHandshakes, listenerOptions, type PortTls, type TlsIdentity } from '../../base/tls.ts';
import type { Replica, ReplicaStatus } from '../../replica/types.ts';
import { REPEATED_WARNING_MS, TLS_VERSION_MIN } from '../tls-listener.ts';
import { type Answer, STARTING, send } from './answers.ts';
import { changeMembersAnswer, type MembersContext, type MembersDoor, membersAnswer } from './members.ts';
import type { Readiness } from './readiness.ts';
import { createDownloads } from './snapshot.ts';

/**
 * The operator's port: a small HTTP server.
 *
 *   GET  /livez     200 as long as the event loop turns
 *   GET  /readyz    200 once this node can serve, else 503 and why not
 *   GET  /status    what this node knows of itself and of the cluster, as JSON
 *   GET  /members   the members as the leader sees them; POST changes them; both only at the leader (admin/members.ts)
 *   GET  /snapshot  all that is stored, as one file (admin/snapshot.ts)
 *
 * It may be opened before the replica exists: until then the status is null and the node is alive, not ready. A client that
 * reaches it may do all of this, so beyond this machine it wants TLS with certificates on both ends.
 */

/** Requests have few headers. */
const HEADER_BYTES_MAX = 8 * 1024;
/** Probes send their request at once; a connection that does not is closed. */
const REQUEST_MS_MAX = 5_000;
/** The interval at which Node checks for requests that take too long. */
const REQUEST_CHECK_INTERVAL_MS = 1_000;
const KEEP_ALIVE_MS = 5_000;
/** Probes, scrapers and a curious operator; not a service port. */
const CONNECTIONS_MAX = 64;

interface NodeIdentity {
  readonly version: string;
  readonly cluster: string;
  readonly nodeId: number;
  readonly pid: number;
  /** `host:port` of each port. */
  readonly addresses: { readonly client: string; readonly peer: string; readonly admin: string };
}

export type AdminDoor = MembersDoor & Pick<Replica, 'backup'>;

export interface AdminPortOptions {
  readonly host: string;
  /** 0 for any free one. */
  readonly port: number;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly identity: NodeIdentity;
  readonly listedNodes: MembersContext['listedNodes'];
  /** Null while the node recovers its log. */
  readonly status: () => ReplicaStatus | null;
  readonly readiness: () => Readiness;
  /** The replica for `/members` and `/snapshot`; null while there is none, or it stops. */
  readonly door: () => AdminDoor | null;
  /** Null or absent: plain HTTP. */
  readonly tls?: PortTls | null;
}

export interface AdminPort {
  readonly port: number;
  /** For connections from now on; where the port is plain it changes nothing. */
  replaceIdentity(identity: TlsIdentity): void;
  /** Stops listening and closes every connection. */
  close(): Promise<void>;
}

/** The answer of `/status`. `replica` is null while the node recovers its log. */
export interface StatusBody extends NodeIdentity {
  readonly uptimeSeconds: number;
  readonly ready: boolean;
  /** Empty where ready. */
  readonly reason: string;
  readonly replica: ReplicaStatus | null;
}

type Handler = (request: IncomingMessage, response: ServerResponse) => void | Promise<void>;

/** By method. HEAD is answered as GET where a route allows it. */
interface Route {
  readonly GET: Handler;
  readonly HEAD?: Handler;
  readonly POST?: Handler;
}

/** Rejects with PORT_UNAVAILABLE. */
export async function openAdminPort(options: AdminPortOptions): Promise<AdminPort> {
  const routes = routesOf(options);
  const { server, replaceIdentity, endHandshakes } = await createHttpServer(options, (request, response) =>
    respond(request, response, routes, options.logger),
  );
  server.maxConnections = CONNECTIONS_MAX;
  server.on('clientError', (_error, socket) => refuse(socket));
  await listen(server, options);
  server.on('error', (err) => options.logger.error({ err }, 'the admin port failed'));
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : options.port;
  return { port, replaceIdentity, close: () => close(server, endHandshakes) };
}

const HTTP_LIMITS = {
  maxHeaderSize: HEADER_BYTES_MAX,
  headersTimeout: REQUEST_MS_MAX,
  requestTimeout: REQUEST_MS_MAX,
  connectionsCheckingInterval: REQUEST_CHECK_INTERVAL_MS,
  keepAliveTimeout: KEEP_ALIVE_MS,
};

async function createHttpServer(
  { tls, clock, logger }: AdminPortOptions,
  onRequest: RequestListener,
): Promise<{ server: Server; replaceIdentity: AdminPort['replaceIdentity']; endHandshakes: () => void }> {
  if (!tls) return { server: createServer(HTTP_LIMITS, onRequest), replaceIdentity() {}, endHandshakes() {} };
  const https = await import('node:https');
  const server = https.createServer({ ...HTTP_LIMITS, ...listenerOptions(tls, TLS_VERSION_MIN) }, onRequest);
  const rateLimitedLog = createRateLimitedLog(clock, logger, REPEATED_WARNING_MS);
  return {
    server,
    endHandshakes: guardHandshakes(server, { clock, rateLimitedLog, portName: 'the admin port' }),
    replaceIdentity: (identity) => server.setSecureContext(contextOptions(identity, TLS_VERSION_MIN)),
  };
}

function routesOf(options: AdminPortOptions): ReadonlyMap<string, Route> {
  const { clock, identity, listedNodes, status, readiness, door, tls } = options;
  const { cluster, nodeId } = identity;
  const membersContext = { cluster, nodeId, listedNodes, scheme: tls ? 'https' : 'http' } as const;
  const startedAtMs = clock.monotonicMs();
  const statusBody = (): StatusBody => {
    const state = readiness();
    return {
      ...identity,
      uptimeSeconds: Math.floor((clock.monotonicMs() - startedAtMs) / 1000),
      ready: state.ready,
      reason: state.reason,
      replica: status(),
    };
  };
  const download = createDownloads({ ...options, cluster: identity.cluster });
  return new Map<string, Route>([
    ['/livez', shown(() => ({ status: 200, body: { live: true } }))],
    [
      '/readyz',
      shown(() => {
        const { ready, reason } = readiness();
        return ready ? { status: 200, body: { ready } } : { status: 503, body: { ready, reason } };
      }),
    ],
    ['/status', shown(() => ({ status: 200, body: statusBody() }))],
    [
      '/members',
      {
        ...shown(() => withDoor(door, (replica) => membersAnswer(replica, membersContext))),
        POST: async (request, response) =>
          send(
            request,
            response,
            await withDoor(door, (replica) => changeMembersAnswer(replica, request, membersContext)),
          ),
      },
    ],
    [
      '/snapshot',
      {
        GET(request, response) {
          const replica = door();
          return replica === null ? send(request, response, STARTING) : download(replica, request, response);
        },
      },
    ],
  ]);
}

/** A route that only shows something. */
function shown(answer: () => Answer | Promise<Answer>): Route {
  const handler: Handler = async (request, response) => send(request, response, await answer());
  return { GET: handler, HEAD: handler };
}

async function withDoor(
  door: AdminPortOptions['door'],
  answer: (replica: AdminDoor) => Answer | Promise<Answer>,
): Promise<Answer> {
  const replica = door();
  return replica === null ? STARTING : answer(replica);
}

function respond(
  request: IncomingMessage,
  response: ServerResponse,
  routes: ReadonlyMap<string, Route>,
  logger: Logger,
): void {
  const path = (request.url ?? '/').split('?', 1)[0] ?? '/';
  const route = routes.get(path);
  if (route === undefined) {
    send(request, response, { status: 404, body: { error: `no ${path} here`, paths: [...routes.keys()] } });
    return;
  }
  const handler = Object.entries(route).find(([method]) => method === request.method)?.[1];
  if (handler === undefined) {
    const methods = Object.keys(route).join(', ');
    response.setHeader('allow', methods);
    send(request, response, { status: 405, body: { error: `${path} answers ${methods}` } });
    return;
  }
  handle(handler, request, response).catch((err) => {
    // A caller that has gone is no news.
    if (!response.destroyed) logger.error({ err, path }, 'an admin request failed');
    response.destroy();
  });
}

async function handle(handler: Handler, request: IncomingMessage, response: ServerResponse): Promise<void> {
  await handler(request, response);
}

function refuse(socket: Duplex): void {
  if (!socket.writable) {
    socket.destroy();
    return;
  }
  socket.end('HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n', () => socket.destroy());
}

function listen(server: Server, { host, port }: AdminPortOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    const failed = (cause: Error) =>
      reject(
        new RaftkvError(
          'PORT_UNAVAILABLE',
          `cannot listen on ${host}:${port} for the admin port: ${cause.message}`,
          'Free the port, or give this node another host or adminPort in cluster.json.',
          cause,
        ),
      );
    server.once('error', failed);
    server.listen({ host, port }, () => {
      server.off('error', failed);
      resolve();
    });
  });
}

function close(server: Server, endHandshakes: () => void): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    endHandshakes();
    server.closeAllConnections();
  });
}
