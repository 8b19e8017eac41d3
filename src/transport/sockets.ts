import { connect, createServer, type Server, type Socket } from 'node:net';
import type { SecureContext, Server as TlsServer } from 'node:tls';
import { RaftkvError } from '../base/errors.ts';
import { isNodeCertificate } from '../base/node-names.ts';
import {
  contextOptions,
  guardHandshakes,
  type HandshakeGuard,
  listenerOptions,
  type TlsIdentity,
} from '../base/tls.ts';
import type { PeerAddress } from './types.ts';

/** Makes all sockets between nodes, plain or encrypted. The rest of the folder doesn't distinguish the two. */
export interface Sockets {
  /** `onOpen` is called once bytes can be sent. */
  dial(peer: PeerAddress, onOpen: () => void): Socket;
  createListener(onSocket: (socket: Socket) => void): Server;
  /** Whether the certificate of the other end names this node. Always true for plain sockets. */
  proves(socket: Socket, nodeId: number): boolean;
  /** Uses this certificate for new connections. Existing ones stay open. */
  replaceIdentity(identity: TlsIdentity): void;
  /** Closes the accepted connections with unfinished TLS handshakes. */
  endHandshakes(): void;
}

/** Both ends are raftkv nodes, so no older version is needed. */
const TLS_VERSION_MIN = 'TLSv1.3';

export const plainSockets: Sockets = {
  dial: ({ host, port }, onOpen) => connect({ host, port, noDelay: true }, onOpen),
  createListener: (onSocket) => createServer({ noDelay: true }, onSocket),
  proves: () => true,
  replaceIdentity() {},
  endHandshakes() {},
};

/** Each end must have a certificate of the common authority that names its node. */
export async function createTlsSockets(
  initial: TlsIdentity,
  clusterName: string,
  guard: HandshakeGuard,
): Promise<Sockets> {
  const tls = await import('node:tls');
  const contextOf = (identity: TlsIdentity): SecureContext =>
    tls.createSecureContext(contextOptions(identity, TLS_VERSION_MIN));
  let identity = initial;
  let secureContext = contextOf(identity);
  const listeners = new Map<TlsServer, () => void>();
  return {
    dial({ id, host, port }, onOpen) {
      const socket = tls.connect(
        {
          host,
          port,
          secureContext,
          checkServerIdentity: (_host, { subjectaltname }) =>
            isNodeCertificate(subjectaltname, clusterName, id) ? undefined : anotherNode(id, clusterName),
        },
        onOpen,
      );
      return socket.setNoDelay(true);
    },
    createListener(onSocket) {
      const options = listenerOptions({ identity, clientCertificates: 'required' }, TLS_VERSION_MIN);
      const listener = tls.createServer({ ...options, noDelay: true }, onSocket);
      listeners.set(listener, guardHandshakes(listener, guard));
      return listener;
    },
    proves(socket, nodeId) {
      if (!(socket instanceof tls.TLSSocket) || !socket.authorized) return false;
      return isNodeCertificate(socket.getPeerCertificate().subjectaltname, clusterName, nodeId);
    },
    replaceIdentity(other) {
      secureContext = contextOf(other);
      identity = other;
      for (const listener of listeners.keys()) listener.setSecureContext(contextOptions(other, TLS_VERSION_MIN));
    },
    endHandshakes() {
      for (const endHandshakes of listeners.values()) endHandshakes();
    },
  };
}

function anotherNode(id: number, clusterName: string): RaftkvError {
  return new RaftkvError(
    'PEER_REFUSED',
    `refused a peer (certificate): the certificate is not that of node ${id} of cluster "${clusterName}"`,
    'Check its host and peerPort in the configuration of this node, and that its certificate names it.',
  );
}
