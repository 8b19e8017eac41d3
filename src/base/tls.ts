import { constants } from 'node:crypto';
import type { Socket } from 'node:net';
import type { SecureContextOptions, SecureVersion, Server, TLSSocket, TlsOptions } from 'node:tls';
import type { Clock } from './clock.ts';
import { RaftkvError } from './errors.ts';
import type { RateLimitedLog } from './logger.ts';

/**
 * What every encrypted port has in common. Types only are imported here: `node:tls` costs some 20 ms of a start, and is
 * loaded where a port is really encrypted.
 */

/** PEM. The certificate may be followed by those between it and the authority's. */
export interface TlsIdentity {
  readonly ca: Buffer;
  readonly cert: Buffer;
  readonly key: Buffer;
}

export interface PortTls {
  readonly identity: TlsIdentity;
  /** `required`: the other end must show a certificate of the same authority. `none`: encryption only. */
  readonly clientCertificates: 'required' | 'none';
}

/** A true client needs a few ms; this leaves room for a slow line and a busy event loop. */
const HANDSHAKE_MS_MAX = 5_000;
/** Connections of one port in their handshake. At the limit the oldest makes room: those of unknown clients linger. */
const HANDSHAKES_UNFINISHED_MAX = 256;

export function contextOptions({ ca, cert, key }: TlsIdentity, minVersion: SecureVersion): SecureContextOptions {
  return {
    ca,
    cert,
    key,
    minVersion,
    // No renegotiation, which costs the server more than the client; no resumption, which would outlive a certificate.
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
 * Bounds the handshakes of a listener in time and number, and logs those that fail. Returns a function that ends those
 * that are unfinished: call it when the listener closes, because `close` waits for every connection, and they would
 * hold it up until their time is over.
 */
export function guardHandshakes(server: Server, guard: HandshakeGuard): () => void {
  const { clock, rateLimitedLog, portName } = guard;
  const handshakeMsMax = guard.handshakeMsMax ?? HANDSHAKE_MS_MAX;
  const unfinishedMax = guard.unfinishedMax ?? HANDSHAKES_UNFINISHED_MAX;
  /** By the other end's address and port, all that an encrypted socket shares with the one below it. Oldest first. */
  const unfinished = new Map<string, { readonly socket: Socket; readonly cancel: () => void }>();

  const finishHandshake = (key: string) => {
    unfinished.get(key)?.cancel();
    unfinished.delete(key);
  };
  const refuse = (socket: Socket, why: string) => {
    // The address of one that has gone already is not known any more.
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

/** A client that leaves in the middle is no news, nor is one that was just told to. */
function wasAborted(error: Error, socket: TLSSocket): boolean {
  return !socket.authorizationError && 'code' in error && error.code === 'ECONNRESET';
}

function reasonOf(error: Error, { authorizationError }: TLSSocket): string {
  const code = 'code' in error ? error.code : error.message;
  if (code === 'ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE') return 'the client sent no certificate';
  if (authorizationError) return `its certificate was rejected (${authorizationError})`;
  return `the handshake failed (${code})`;
}
