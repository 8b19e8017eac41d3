import { createServer, type IncomingMessage, type RequestListener, type Server, type ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import type { Clock } from '../base/clock.ts';
import { createComplaints } from '../base/complaints.ts';
import { RaftkvError } from '../base/errors.ts';
import type { Logger } from '../base/logger.ts';
import { contextOptions, guardHandshakes, listenerOptions, type PortTls, type TlsIdentity } from '../base/tls.ts';
import type { ReplicaStatus } from '../replica/types.ts';
import type { Readiness } from './readiness.ts';
import { COMPLAINT_INTERVAL_MS, TLS_VERSION_MIN } from './tls-listener.ts';

/**
 * The operator's port: a small HTTP server that answers from memory and changes nothing.
 *
 *   GET /livez   200 as long as the event loop turns
 *   GET /readyz  200 once this node can serve, else 503 and why not
 *   GET /status  what this node knows of itself and of the cluster, as JSON
 *
 * It may be opened before the replica exists: until then the status is null and the node is alive, not ready.
 */

/** Requests have no body and few headers. */
const HEADER_BYTES_MAX = 8 * 1024;
/** A probe sends its request at once; one that doesn't is cut off. */
const REQUEST_MS_MAX = 5_000;
/** How often Node looks for requests that take too long. */
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

export interface AdminPortOptions {
  readonly host: string;
  /** 0 for any free one. */
  readonly port: number;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly identity: NodeIdentity;
  /** Null while the node recovers its log. */
  readonly status: () => ReplicaStatus | null;
  readonly readiness: () => Readiness;
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

/** What `/status` answers. `replica` is null while the node recovers its log. */
export interface StatusBody extends NodeIdentity {
  readonly uptimeSeconds: number;
  readonly ready: boolean;
  /** Empty where ready. */
  readonly reason: string;
  readonly replica: ReplicaStatus | null;
}

interface Answer {
  readonly status: number;
  readonly body: object;
}

type Route = () => Answer;

/** Rejects with PORT_UNAVAILABLE. */
export async function openAdminPort(options: AdminPortOptions): Promise<AdminPort> {
  const routes = routesOf(options);
  const { server, replaceIdentity } = await createHttpServer(options, (request, response) =>
    respond(request, response, routes),
  );
  server.maxConnections = CONNECTIONS_MAX;
  server.on('clientError', (_error, socket) => refuse(socket));
  await listen(server, options);
  server.on('error', (err) => options.logger.error({ err }, 'the admin port failed'));
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : options.port;
  return { port, replaceIdentity, close: () => close(server) };
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
): Promise<{ server: Server; replaceIdentity: AdminPort['replaceIdentity'] }> {
  if (!tls) return { server: createServer(HTTP_LIMITS, onRequest), replaceIdentity() {} };
  const https = await import('node:https');
  const server = https.createServer({ ...HTTP_LIMITS, ...listenerOptions(tls, TLS_VERSION_MIN) }, onRequest);
  const complaints = createComplaints(clock, logger, COMPLAINT_INTERVAL_MS);
  guardHandshakes(server, { clock, complaints, portName: 'the admin port' });
  return {
    server,
    replaceIdentity: (identity) => server.setSecureContext(contextOptions(identity, TLS_VERSION_MIN)),
  };
}

function routesOf({ clock, identity, status, readiness }: AdminPortOptions): ReadonlyMap<string, Route> {
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
  return new Map<string, Route>([
    ['/livez', () => ({ status: 200, body: { live: true } })],
    [
      '/readyz',
      () => {
        const { ready, reason } = readiness();
        return ready ? { status: 200, body: { ready } } : { status: 503, body: { ready, reason } };
      },
    ],
    ['/status', () => ({ status: 200, body: statusBody() })],
  ]);
}

function respond(request: IncomingMessage, response: ServerResponse, routes: ReadonlyMap<string, Route>): void {
  const path = (request.url ?? '/').split('?', 1)[0] ?? '/';
  const route = routes.get(path);
  if (route === undefined) {
    send(request, response, { status: 404, body: { error: `no ${path} here`, paths: [...routes.keys()] } });
    return;
  }
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    response.setHeader('allow', 'GET, HEAD');
    // A body that nobody reads must not keep the connection.
    response.setHeader('connection', 'close');
    send(request, response, { status: 405, body: { error: `${path} answers GET and HEAD` } });
    return;
  }
  send(request, response, route());
}

function send(request: IncomingMessage, response: ServerResponse, { status, body }: Answer): void {
  const text = `${JSON.stringify(body)}\n`;
  response.writeHead(status, {
    'content-type': 'application/json; charset=utf-8',
    'content-length': Buffer.byteLength(text),
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
  });
  response.end(request.method === 'HEAD' ? undefined : text);
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

function close(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}
