import { constants } from 'node:crypto';
import type { Socket } from 'node:net';
import type { SecureContextOptions, SecureVersion, Server, TLSSocket, TlsOptions } from 'node:tls';
import type { Clock } from './clock.ts';
import { RaftkvError } from './errors.ts';
import type { RateLimitedLog } from './logger.ts';

/**
 * The code that all encrypted ports share. Only types are imported from `node:tls`, because loading it takes about
 * 20 ms. So a node without encrypted ports doesn't load it.
 */

/** A certificate with its key, and the authority that the other end must trust, all in PEM. */
export interface TlsIdentity {
  readonly ca: Buffer;
  /** May contain the intermediate certificates after the certificate itself. */
  readonly cert: Buffer;
  readonly key: Buffer;
}

export interface PortTls {
  readonly identity: TlsIdentity;
  /**
   * `required`: the client must have a certificate signed by `identity.ca`. `none`: the client shows no certificate.
   */
  readonly clientCertificates: 'required' | 'none';
}

/**
 * The time limit of a handshake. A healthy client takes a few ms; the rest is for slow networks and a busy event loop.
 */
const HANDSHAKE_MS_MAX = 5_000;
/**
 * The number of unfinished handshakes on one port. At the limit the oldest connection is closed: healthy clients finish
 * within milliseconds, so the oldest one is most likely idle or hostile.
 */
const HANDSHAKES_UNFINISHED_MAX = 256;

export function contextOptions({ ca, cert, key }: TlsIdentity, minVersion: SecureVersion): SecureContextOptions {
  return {
    ca,
    cert,
    key,
    minVersion,
    // A renegotiation costs the server more than the client. A resumed session could outlive the client's certificate.
    secureOptions: constants.SSL_OP_NO_RENEGOTIATION | constants.SSL_OP_NO_TICKET,
  };
}

export function listenerOptions({ identity, clientCertificates }: PortTls, minVersion: SecureVersion): TlsOptions {
  const required = clientCertificates === 'required';
  return { ...contextOptions(identity, minVersion), requestCert: required, rejectUnauthorized: required };
}

export interface HandshakeGuard {
  readonly clock: Clock;
  readonly rateLimitedLog: RateLimitedLog;
  /** The name of the port in messages, for example "the client port". */
  readonly portName: string;
  readonly handshakeMsMax?: number;
  readonly unfinishedMax?: number;
}

/**
 * Limits how long a handshake on `server` may take and how many may be unfinished, and logs those that fail. Returns a
 * function that closes the connections with unfinished handshakes. Call it after `server.close`, which waits for every
 * connection, otherwise it waits until those handshakes time out.
 */
export function guardHandshakes(server: Server, guard: HandshakeGuard): () => void {
  const { clock, rateLimitedLog, portName } = guard;
  const handshakeMsMax = guard.handshakeMsMax ?? HANDSHAKE_MS_MAX;
  const unfinishedMax = guard.unfinishedMax ?? HANDSHAKES_UNFINISHED_MAX;
  /**
   * Keyed by the remote address and port: 'connection' reports the TCP socket and 'secureConnection' the TLS socket,
   * and only these two values are the same in both. Oldest first.
   */
  const unfinished = new Map<string, { readonly socket: Socket; readonly cancel: () => void }>();

  const finishHandshake = (key: string) => {
    unfinished.get(key)?.cancel();
    unfinished.delete(key);
  };
  const refuse = (socket: Socket, why: string) => {
    // A socket that has been closed has no remote address.
    const from = socket.remoteAddress === undefined ? '' : ` from ${socket.remoteAddress}`;
    rateLimitedLog.warn(
      `tls ${portName}`,
      new RaftkvError(
        'TLS_REFUSED',
        `refused a connection to ${portName}${from}: ${why}`,
        'If the client is legitimate, issue it a certificate signed by the authority that this node trusts.',
      ),
      {},
    );
  };
  server.prependListener('connection', (socket: Socket) => {
    const key = addressOf(socket);
    for (const [oldest, { socket: lingering }] of unfinished) {
      if (unfinished.size < unfinishedMax) break;
      finishHandshake(oldest);
      lingering.destroy();
    }
    const cancel = clock.after(handshakeMsMax, () => {
      refuse(socket, `no handshake within ${handshakeMsMax} ms`);
      socket.destroy();
    });
    unfinished.set(key, { socket, cancel });
    socket.once('close', () => {
      cancel();
      if (unfinished.get(key)?.socket === socket) unfinished.delete(key);
    });
  });
  server.on('secureConnection', (socket) => finishHandshake(addressOf(socket)));
  server.on('tlsClientError', (error, socket) => {
    finishHandshake(addressOf(socket));
    if (!wasAborted(error, socket)) refuse(socket, reasonOf(error, socket));
    socket.destroy();
  });
  return () => {
    for (const { socket } of unfinished.values()) socket.destroy();
  };
}

function addressOf(socket: Socket): string {
  return `${socket.remoteAddress} ${socket.remotePort}`;
}

/**
 * Whether a handshake ended because its connection was closed, by the client or by us. That needs no warning: a client
 * may disconnect at any time, and a timeout is logged where it closes the connection.
 */
function wasAborted(error: Error, socket: TLSSocket): boolean {
  return !socket.authorizationError && 'code' in error && error.code === 'ECONNRESET';
}

function reasonOf(error: Error, { authorizationError }: TLSSocket): string {
  const code = 'code' in error ? error.code : error.message;
  if (code === 'ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE') return 'the client sent no certificate';
  if (authorizationError) return `its certificate was rejected (${authorizationError})`;
  return `the handshake failed (${code})`;
}
