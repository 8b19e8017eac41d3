import type { Server, Socket } from 'node:net';
import {
  contextOptions,
  guardHandshakes,
  type HandshakeGuard,
  listenerOptions,
  type PortTls,
  type TlsIdentity,
} from '../base/tls.ts';

/** Clients are of all ages. */
export const TLS_VERSION_MIN = 'TLSv1.2';
/** A warning of the same kind at the same port is logged at most this often. */
export const REPEATED_WARNING_MS = 10_000;

export interface TlsListener {
  readonly server: Server;
  /** Only sockets whose handshake is done, and whose certificate is good where one is asked for. */
  onSocket(accept: (socket: Socket) => void): void;
  replaceIdentity(identity: TlsIdentity): void;
  /** Closes the connections whose handshake is not done. */
  endHandshakes(): void;
}

export async function openTlsListener(port: PortTls, guard: HandshakeGuard): Promise<TlsListener> {
  const { createServer } = await import('node:tls');
  const server = createServer({ ...listenerOptions(port, TLS_VERSION_MIN), allowHalfOpen: true });
  const endHandshakes = guardHandshakes(server, guard);
  return {
    server,
    endHandshakes,
    onSocket: (accept) => server.on('secureConnection', accept),
    replaceIdentity: (identity) => server.setSecureContext(contextOptions(identity, TLS_VERSION_MIN)),
  };
}
