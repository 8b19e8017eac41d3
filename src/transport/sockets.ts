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

/** The only place that makes sockets between nodes. The rest of the folder can't tell plain and encrypted ones apart. */
export interface Sockets {
  /** `onOpen` is called once bytes can be sent. */
  dial(peer: PeerAddress, onOpen: () => void): Socket;
  createListener(onSocket: (socket: Socket) => void): Server;
  /** Whether the other end has proved to be that node, where proof is asked for. */
  proves(socket: Socket, nodeId: number): boolean;
  /** Shows this certificate from now on. Links that stand stay. */
  replaceIdentity(identity: TlsIdentity): void;
  /** Closes the accepted connections whose TLS handshake is not done. */
  endHandshakes(): void;
}

/** Both ends are of this program. */
const TLS_VERSION_MIN = 'TLSv1.3';

export const plainSockets: Sockets = {
  dial: ({ host, port }, onOpen) => connect({ host, port, noDelay: true }, onOpen),
  createListener: (onSocket) => createServer({ noDelay: true }, onSocket),
  proves: () => true,
  replaceIdentity() {},
  endHandshakes() {},
};

/** Each end has to show a certificate of the authority that names it as the node that it says it is. */
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
