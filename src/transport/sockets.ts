import { connect, createServer, type Server, type Socket } from 'node:net';

/**
 * The only place that makes sockets; encryption would come in here, by tls.connect and tls.createServer, whose
 * sockets and events the rest of the folder could not tell apart but for the name of the first event.
 */

/** `onOpen` is called once bytes can be sent. */
export function dialSocket(host: string, port: number, onOpen: () => void): Socket {
  return connect({ host, port, noDelay: true }, onOpen);
}

export function createSocketListener(onSocket: (socket: Socket) => void): Server {
  return createServer({ noDelay: true }, onSocket);
}
